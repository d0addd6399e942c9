"""The record that one run leaves. Everything else that describes a record (columns, schema) is generated from here.

Missing is null with a status, never 0.0; a NaN cannot enter (`allow_inf_nan=False`).
"""

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA_VERSION = 1

Status = Literal["ok", "failed", "oom", "diverged", "load_failed", "skipped"]
STATUSES: tuple[str, ...] = get_args(Status)
FAILED_STATUSES: tuple[Status, ...] = ("failed", "oom", "diverged", "load_failed")
RETRIED: tuple[Status, ...] = ("failed", "oom", "load_failed")  # by `bench run --retry`; diverged would diverge again

Fraction = float | None
MOST = 2**31 - 1  # of a count: what a table can hold
MOST_S = 1e9  # seconds: thirty years
MOST_CHARACTERS = 2_000  # of one text in a record; a longer reason is cut when it is written
MOST_SETTINGS = 2**18  # characters of `settings` as JSON: those of the longest chain take 20,000
HEX = r"^[0-9a-f]{64}$"


Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scores(_Part):
    """What the test split says of one run; all of it is recomputed from the evidence."""

    miou: float = Field(
        ge=0, le=1, description="mean IoU over the classes that occur in the test truth, background included"
    )
    miou_no_background: Fraction = Field(
        ge=0, le=1, description="the same without class 0; null where only class 0 occurs"
    )
    weighted_f: float = Field(
        ge=0,
        le=1,
        description="weighted F-measure: per class the mean over the test images that contain it, then the mean over classes",
    )
    class_iou: list[Fraction] = Field(
        description="IoU of each class, in the order of `classes`; null where absent from the test truth"
    )
    class_weighted_f: list[Fraction] = Field(
        description="weighted F-measure of each class; null where absent from the test truth"
    )
    class_false_presence: list[Fraction] = Field(
        description="share of the test images without the class in which it was predicted; null where every image contains it"
    )
    test_images: int = Field(ge=1, le=MOST, description="number of test images scored")


class Tuning(_Part):
    """How the schedule was chosen. Validation scores choose; they are never a result."""

    schedule: dict[Text, float | Text] = Field(description="the schedule this run used; JSON text in a table")
    trials: int = Field(ge=1, le=MOST, description="number of trials, the default schedule included")
    default_val_miou: Fraction = Field(
        description="validation mIoU of the default schedule (trial 0); null where it diverged"
    )
    tuned_val_miou: float = Field(
        description="validation mIoU of the chosen trial: the best of `trials`, so inflated, no result"
    )
    trial_val_mious: list[Fraction] = Field(
        default_factory=list, description="validation mIoU of every trial, in order; null where it diverged"
    )


class Pretraining(_Part):
    """What an encoder was pretrained on here, and whether it learned anything. Null for a source that brings its weights."""

    corpus: str = Field(pattern=HEX, description="content hash of the images and label maps")
    pretrain_images: int = Field(ge=1, le=MOST, description="images that were trained on")
    pretrain_steps: int = Field(ge=1, le=MOST, description="optimiser steps on the corpus")
    pretrain_loss: float = Field(description="mean training loss over the last tenth of these steps")
    heldout_images: int = Field(ge=0, le=MOST, description="images of the corpus that were held out of it")
    heldout_loss_before: float | None = Field(
        description="loss on crops of them before the first step; null without any"
    )
    heldout_loss: float | None = Field(description="the same after the last step")
    heldout_miou: Fraction = Field(ge=0, le=1, description="mIoU of the predicted pseudo-labels on them")
    heldout_miou_constant: Fraction = Field(
        ge=0, le=1, description="the same for the best constant: what learned nothing scores about this"
    )

    @model_validator(mode="after")
    def _is_held_against_a_constant(self) -> "Pretraining":
        if (self.heldout_miou is None) != (self.heldout_miou_constant is None):
            raise ValueError("heldout_miou and heldout_miou_constant go together")
        return self


class Provenance(_Part):
    """Where and how the run was made. Not part of its identity."""

    version: Text = Field(description="satir-bench version")
    commit: Text | None = Field(
        description="git commit of the harness, '+dirty' where files were changed; null outside a checkout"
    )
    packages: dict[Text, Text] = Field(description="versions of the packages that shape numbers; JSON text in a table")
    device: Text = Field(description="the processor that ran the unit")
    threads: int = Field(ge=1, le=MOST, description="torch threads")
    precision: Text = Field(description="fp32, or bf16 autocast")
    started: Text = Field(description="UTC time at which the unit started, ISO 8601")
    train_s: float = Field(ge=0, le=MOST_S, description="seconds of finetuning")
    score_s: float = Field(ge=0, le=MOST_S, description="seconds of scoring on the test split")
    final_loss: float = Field(description="mean training loss over the last tenth of the steps")


class RunRecord(_Part):
    """One replicate of one cell: what it is, how it ended, what it scored."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    run: str = Field(pattern=HEX, description="fingerprint of the run: sha256 over all that shapes its result")
    cell: str = Field(pattern=HEX, description="fingerprint of the cell: the same without the replicate")
    target: Text = Field(description="target, by name")
    target_hash: Text = Field(description="content hash of the target: splits, pixels, labels, groups")
    label_note: Text = Field(description="what the target's labels are; shown wherever a number stands")
    classes: list[Text] = Field(
        max_length=255, description="the target's classes, in the order of every per-class list"
    )
    protocol: Text = Field(description="protocol, by name")
    protocol_hash: Text = Field(description="hash of all that the protocol holds equal")
    result_version: Text = Field(
        description="versions of the stages that made it; results of different ones are never mixed"
    )
    source: Text = Field(description="pretraining source, by its true name")
    backbone: Text = Field(description="backbone, by name")
    train_frac: float = Field(gt=0, le=1, description="fraction of the train split that was used")
    replicate: int = Field(ge=0, le=MOST, description="which draw of the whole pipeline")
    replicates: int = Field(ge=1, le=MOST, description="how many replicates the protocol asks for")
    ranked: bool = Field(description="false where the protocol is too short to rank anything (demo, smoke)")
    selected_on_test: bool = Field(description="true where the protocol chose the schedule on the test split")
    leak: Text | None = Field(
        default=None, description="what the source has seen of the target; such a run is marked and never ranked"
    )
    status: Status = Field(description="how the run ended: " + ", ".join(STATUSES))
    reason: Text | None = Field(description="why, where the status is not ok")
    finetune_steps: int = Field(ge=1, le=MOST, description="optimiser steps on the target")
    normalisation: dict[str, list[float]] | None = Field(
        description="input mean and std, on 0..1; they belong to the weights; JSON text in a table"
    )
    weights: Text | None = Field(description="where the encoder's weights came from; null for random initialisation")
    weights_sha256: Text | None = Field(
        description="over names and values of the encoder's tensors as they were loaded"
    )
    scores: Scores | None = Field(description="null unless the status is ok")
    tuning: Tuning | None = Field(description="null where tuning did not finish")
    pretraining: Pretraining | None = Field(default=None, description="null where no corpus was trained on")
    provenance: Provenance | None = Field(description="null where the run did not get that far")
    evidence_sha256: Text | None = Field(description="checksum of evidence.npz beside the record")
    network_sha256: Text | None = Field(
        default=None, description="over names and values of the whole finetuned network, as it was scored"
    )
    finished: Text = Field(description="UTC time at which the record was written, ISO 8601")
    settings: dict[str, Any] = Field(
        description="card, backbone spec, protocol, and what the fingerprint `run` is made of, in full"
    )

    @field_validator("settings")
    @classmethod
    def _is_no_larger_than_any(cls, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(settings))
        except (RecursionError, ValueError) as error:
            raise ValueError("nested too deeply") from error
        if size > MOST_SETTINGS:
            raise ValueError(f"{size:,} characters, more than any run needs")
        return settings

    @model_validator(mode="after")
    def _scores_and_status_agree(self) -> "RunRecord":
        lists = (
            (self.scores.class_iou, self.scores.class_weighted_f, self.scores.class_false_presence)
            if self.scores
            else ()
        )
        if not self.classes or any(len(values) != len(self.classes) for values in lists):
            raise ValueError("the scores of classes are not as many as the classes")
        complete = None not in (self.scores, self.tuning, self.provenance, self.evidence_sha256)
        if self.status == "ok" and not complete:
            raise ValueError("status is ok, but scores, tuning, provenance or evidence_sha256 is null")
        if self.status != "ok" and (self.scores is not None or not self.reason):
            raise ValueError(f"status is {self.status}: scores must be null and a reason must be given")
        return self


def column_docs(model: type[BaseModel] = RunRecord) -> dict[str, str]:
    """Flat column name -> description, for every column that `load_table` returns. `settings` stays in the record."""
    nested: dict[str, type[BaseModel]] = {
        "scores": Scores,
        "tuning": Tuning,
        "pretraining": Pretraining,
        "provenance": Provenance,
    }
    docs: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if model is RunRecord and name in nested:
            docs |= column_docs(nested[name])
        elif name not in ("settings", "schema_version"):
            docs[name] = field.description or ""
    return docs


OF_SUBMISSIONS = {  # columns that are in no record
    "submission": "the bundle in submissions/ that the run came in; null where it was measured here",
    "badge": "how far that bundle was checked (recomputed, spot-checked, reproduced) and by whom, as its verdict says; "
    "null where it was measured here",
}


def columns_markdown() -> str:
    """The text of results/COLUMNS.md. Made by `python -m results.record > results/COLUMNS.md`."""
    head = "# Columns\n\nOne row a run, from `results.load_table(store)`. Generated from `results/record.py`; do not edit.\n"
    return (
        head
        + "\n| column | what |\n|---|---|\n"
        + "".join(f"| `{name}` | {text} |\n" for name, text in (column_docs() | OF_SUBMISSIONS).items())
    )


if __name__ == "__main__":
    print(columns_markdown(), end="")
