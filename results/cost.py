"""What a run costs, as its record says it."""

from pydantic import Field

from results.frozen import Frozen
from results.limits import MOST, MOST_S

Seconds = float | None
NO_STAGE = "0 without such a stage; null if it was not measured"


class Cost(Frozen):
    """Size and speed of the finetuned network, and the time behind the run. Never part of an identity; null: not measured.

    A processor second is one of CPU time, or on a GPU one of its time.
    """

    parameters: int | None = Field(default=None, ge=0, le=2**53, description="number of the network's parameters")
    flops: int | None = Field(
        default=None,
        ge=0,
        le=2**62,
        description="floating-point operations to predict one image, as torch's counter has them (a multiply-add is two)",
    )
    images_per_s: float | None = Field(
        default=None,
        gt=0,
        le=MOST,
        description="images predicted in a second on the run's device, one at a time (median)",
    )
    peak_memory_bytes: int | None = Field(
        default=None,
        ge=0,
        le=2**53,
        description="peak memory while finetuning and scoring: of the process, or on a GPU of torch's tensors there",
    )
    corpus_s: Seconds = Field(default=None, ge=0, le=MOST_S, description=f"seconds of making pseudo-labels; {NO_STAGE}")
    pretrain_s: Seconds = Field(default=None, ge=0, le=MOST_S, description=f"seconds of pretraining; {NO_STAGE}")
    tune_s: Seconds = Field(default=None, ge=0, le=MOST_S, description=f"seconds of tuning; {NO_STAGE}")
    corpus_processor_s: Seconds = Field(default=None, ge=0, le=MOST_S, description="processor seconds of corpus_s")
    pretrain_processor_s: Seconds = Field(default=None, ge=0, le=MOST_S, description="processor seconds of pretrain_s")
    tune_processor_s: Seconds = Field(default=None, ge=0, le=MOST_S, description="processor seconds of tune_s")
    final_processor_s: Seconds = Field(
        default=None, ge=0, le=MOST_S, description="processor seconds of finetuning and scoring (train_s and score_s)"
    )
