"""Schema of run records. The documentation of columns is generated from here.

A missing value is null, explained by `status`; never 0.0 and never NaN (`allow_inf_nan=False`).
"""

import json
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from results.cost import Cost
from results.frozen import Frozen
from results.limits import MOST, MOST_S, MOST_SETTINGS, Fraction, Text
from results.schedule_names import DEFAULT, TUNED, ScheduleKind
from results.scores import Scores
from results.tuning import Tuning

SCHEMA_VERSION = 1

Status = Literal["ok", "failed", "oom", "diverged", "load_failed", "skipped"]
STATUSES: tuple[str, ...] = get_args(Status)
FAILED_STATUSES: tuple[Status, ...] = ("failed", "oom", "diverged", "load_failed")
RETRIED: tuple[Status, ...] = (
    "failed",
    "oom",
    "load_failed",
)  # choices of `bench run --retry`; a diverged run would diverge again

HEX = r"^[0-9a-f]{64}$"
TRAIN, VAL, TEST = "train", "val", "test"  # splits of every target; a target may have further test splits
SPLIT = r"[a-z0-9][a-z0-9-]{0,31}"  # name of a further test split; part of a file name
MOST_FURTHER = 8  # limit for further test splits

SplitName = Annotated[str, Field(pattern=f"^{SPLIT}$")]


def evidence_name(split: str = TEST) -> str:
    """Return the name of the evidence file of a test split, beside the record."""
    return "evidence.npz" if split == TEST else f"evidence-{split}.npz"


class Further(Frozen):
    """The scores of a run on a further test split."""

    scores: Scores
    evidence_sha256: str = Field(pattern=HEX, description="sha256 of evidence-SPLIT.npz next to the record")


class Pretraining(Frozen):
    """Pretraining of the encoder by the harness. Null for sources with existing weights."""

    later = MappingProxyType({"heldout_loss_constant": None})

    corpus: str = Field(
        pattern=HEX, description="content hash of the images and label maps; without labels, of the images"
    )
    pretrain_images: int = Field(ge=1, le=MOST, description="number of training images")
    pretrain_steps: int = Field(ge=1, le=MOST, description="optimiser steps on the corpus")
    pretrain_loss: float = Field(description="mean training loss over the last tenth of these steps")
    heldout_images: int = Field(ge=0, le=MOST, description="number of corpus images held out from training")
    heldout_loss_before: float | None = Field(
        description="held-out loss before the first step; null without held-out images"
    )
    heldout_loss: float | None = Field(description="held-out loss after the last step")
    heldout_loss_constant: float | None = Field(
        default=None,
        description="held-out loss of the best constant prediction, if masked images are reconstructed; null with pseudo-labels",
    )
    heldout_miou: Fraction = Field(
        ge=0, le=1, description="mIoU of the predicted pseudo-labels on the held-out images; null without labels"
    )
    heldout_miou_constant: Fraction = Field(
        ge=0,
        le=1,
        description="mIoU of the best constant prediction there; about the score of an encoder that learned nothing",
    )

    @model_validator(mode="after")
    def _miou_has_its_constant(self) -> "Pretraining":
        if (self.heldout_miou is None) != (self.heldout_miou_constant is None):
            raise ValueError("heldout_miou and heldout_miou_constant must both be set or both be null")
        if self.heldout_loss_constant is not None and self.heldout_miou is not None:
            raise ValueError(
                "a pretraining on pseudo-labels has heldout_miou, one without labels heldout_loss_constant"
            )
        return self


class Provenance(Frozen):
    """Where and how the run was made; not part of its identity."""

    later = MappingProxyType({"val_frames": None})

    version: Text = Field(description="version of satir-bench")
    commit: Text | None = Field(
        description="git commit of the harness, with '+dirty' for uncommitted changes; null outside of a checkout"
    )
    packages: dict[Text, Text] = Field(description="versions of the packages that affect results; JSON text in a table")
    device: Text = Field(description="CPU or GPU that ran the unit")
    gpu: int | None = Field(
        default=None, ge=0, le=MOST, description="number of the GPU among those that the run saw; null for a CPU"
    )
    threads: int = Field(ge=1, le=MOST, description="number of torch threads")
    precision: Text = Field(description="fp32, or bf16 for autocast on a GPU")
    started: Text = Field(description="UTC time at which the unit started, ISO 8601")
    train_s: float = Field(ge=0, le=MOST_S, description="seconds of finetuning")
    score_s: float = Field(
        ge=0, le=MOST_S, description="seconds of scoring on the test splits, and of the points on val during training"
    )
    val_frames: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="number of val frames behind the points `val_miou` in history.csv, which no choice depends on; null without",
    )
    final_loss: float = Field(description="mean training loss over the last tenth of the steps")


class RunRecord(Frozen):
    """One replicate of one cell: identity, status and scores."""

    later = MappingProxyType(
        {
            "further": None,
            "transfer": "finetune",
            "schedule_kind": TUNED,
            "licence": None,
            "has_seen": None,
            "cost": None,
        }
    )

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    run: str = Field(pattern=HEX, description="fingerprint of the run: sha256 of everything that affects its result")
    cell: str = Field(pattern=HEX, description="fingerprint of the cell: the same without the replicate number")
    target: Text = Field(description="name of the target")
    target_hash: Text = Field(description="content hash of the target: splits, pixels, labels, groups")
    label_note: Text = Field(description="how the target was labelled; shown next to its scores")
    classes: list[Text] = Field(max_length=255, description="classes of the target; per-class lists follow this order")
    protocol: Text = Field(description="name of the protocol")
    protocol_hash: Text = Field(description="hash of the settings of the protocol")
    result_version: Text = Field(
        description="versions of the stages that made the run; runs of different versions are never mixed"
    )
    source: Text = Field(description="name of the pretraining source")
    backbone: Text = Field(description="name of the backbone")
    train_frac: float = Field(gt=0, le=1, description="fraction of the train split that was used")
    replicate: int = Field(ge=0, le=MOST, description="replicate number: one draw of the whole pipeline")
    replicates: int = Field(ge=1, le=MOST, description="number of replicates that the protocol requires")
    ranked: bool = Field(description="false if the protocol is too short for a ranking (demo, smoke)")
    selected_on_test: bool = Field(description="true if the protocol chose the schedule on the test split")
    transfer: Literal["finetune", "frozen", "linear"] = Field(
        default="finetune",
        description="what was trained on the target: all (finetune), decoder and head (frozen), or a 1 x 1 convolution (linear)",
    )
    schedule_kind: ScheduleKind = Field(
        default=TUNED,
        description="tuned: chosen on the validation split; default: the protocol's default schedule, not tuned",
    )
    leak: Text | None = Field(
        default=None, description="what the source has seen of the target; such runs are marked and never ranked"
    )
    licence: Text | None = Field(
        default=None,
        description="licence of the source's weights, teacher or corpus, as its card states it; null: not stated",
    )
    has_seen: Text | None = Field(
        default=None,
        description="what the source's weights or teacher were trained on besides the pool, as its card states it: data sets, "
        "nothing, or unknown; null in older records",
    )
    status: Status = Field(description="how the run ended: " + ", ".join(STATUSES))
    reason: Text | None = Field(description="reason for a status other than ok")
    finetune_steps: int = Field(ge=1, le=MOST, description="optimiser steps on the target")
    normalisation: dict[str, list[float]] | None = Field(
        description="mean and std of the input normalisation, on 0..1, as the weights require; JSON text in a table"
    )
    weights: Text | None = Field(description="origin of the encoder weights; null for random initialisation")
    weights_sha256: Text | None = Field(description="sha256 over names and values of the loaded encoder tensors")
    scores: Scores | None = Field(description="null unless the status is ok")
    tuning: Tuning | None = Field(description="null if tuning did not finish")
    pretraining: Pretraining | None = Field(default=None, description="null without pretraining by the harness")
    provenance: Provenance | None = Field(description="null if the run did not get that far")
    cost: Cost | None = Field(default=None, description="null unless the status is ok, and in older records")
    evidence_sha256: Text | None = Field(description="sha256 of evidence.npz next to the record")
    further: dict[SplitName, Further] | None = Field(
        default=None,
        description="scores on the further test splits of the target, and the sha256 of their evidence, by split; null if it "
        "has none; JSON text in a table: `results.further.on_split` reads it",
    )
    network_sha256: Text | None = Field(
        default=None, description="sha256 over names and values of the tensors of the finetuned network"
    )
    finished: Text = Field(description="UTC time at which the record was written, ISO 8601")
    settings: dict[str, Any] = Field(
        description="card, backbone spec, protocol, and all input of the fingerprint `run`"
    )

    @field_validator("settings")
    @classmethod
    def _size_is_limited(cls, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(settings))
        except (RecursionError, ValueError) as error:
            raise ValueError("nested too deeply") from error
        if size > MOST_SETTINGS:
            raise ValueError(f"too large: {size:,} characters; at most {MOST_SETTINGS:,}")
        return settings

    @field_validator("further")
    @classmethod
    def _splits_are_few(cls, further: dict[str, Further] | None) -> dict[str, Further] | None:
        if further is not None and not 1 <= len(further) <= MOST_FURTHER:
            raise ValueError(f"{len(further)} further test splits; from 1 to {MOST_FURTHER} are allowed, or null")
        if further and (taken := sorted({TRAIN, VAL, TEST} & further.keys())):
            raise ValueError(f"a further test split must not be named {taken[0]}")
        return further

    @model_validator(mode="after")
    def _scores_and_status_agree(self) -> "RunRecord":
        lists = [values for one in self.by_split.values() for values in one.per_class]
        if not self.classes or any(len(values) != len(self.classes) for values in lists):
            raise ValueError("per-class scores must have one value per class")
        complete = None not in (self.scores, self.tuning, self.provenance, self.evidence_sha256)
        if self.status == "ok" and not complete:
            raise ValueError("status is ok, so scores, tuning, provenance and evidence_sha256 must not be null")
        if self.tuning and (self.tuning.trials == 0) != (self.schedule_kind == DEFAULT):
            raise ValueError("a run with the default schedule has 0 trials, and a tuned one at least 1")
        if self.status != "ok" and (self.scores or self.further or not self.reason):
            raise ValueError(f"status is {self.status}: scores must be null and a reason must be given")
        return self

    @property
    def by_split(self) -> dict[str, Scores]:
        """Scores on each test split, `test` first; none unless the status is ok."""
        further = {name: one.scores for name, one in (self.further or {}).items()}
        return {} if self.scores is None else {TEST: self.scores} | further

    def evidence_digest(self, split: str = TEST) -> str | None:
        """Return the sha256 of the evidence of a test split; None if the run was not scored on it."""
        if split == TEST:
            return self.evidence_sha256
        return self.further[split].evidence_sha256 if self.further and split in self.further else None


def column_docs(model: type[BaseModel] = RunRecord) -> dict[str, str]:
    """Map every column of `load_table` to its description. `settings` is not a column."""
    nested: dict[str, type[BaseModel]] = {
        "scores": Scores,
        "tuning": Tuning,
        "pretraining": Pretraining,
        "provenance": Provenance,
        "cost": Cost,
    }
    docs: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if model is RunRecord and name in nested:
            docs |= column_docs(nested[name])
        elif name not in ("settings", "schema_version"):
            docs[name] = field.description or ""
    return docs


OF_TABLE = {  # column added to those of the records
    "test_split": "test split that the scores and the evidence are of: test, or another after `results.further.on_split`"
}
OF_SUBMISSIONS = {  # columns added to those of the records
    "submission": "bundle in submissions/ that contains the run; null for runs of this store",
    "badge": "verification level of that bundle (recomputed, spot-checked, reproduced) and who verified it; "
    "null for runs of this store",
}


def columns_markdown() -> str:
    """Return the text of results/COLUMNS.md; update it with `python -m results.record > results/COLUMNS.md`."""
    head = "# Columns\n\nOne row per run, from `results.load_table(store)`. Generated from `results/record.py`; do not edit.\n"
    return (
        head
        + "\n| column | description |\n|---|---|\n"
        + "".join(f"| `{name}` | {text} |\n" for name, text in (column_docs() | OF_TABLE | OF_SUBMISSIONS).items())
    )


if __name__ == "__main__":
    print(columns_markdown(), end="")
