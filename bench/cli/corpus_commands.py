"""`bench corpus`: pseudo-labels outside of a matrix."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from bench.cli.options import FOLDER, JOBS, WEIGHTS, Group, say, with_

OUT_FILE = click.Path(path_type=Path, dir_okay=False)


class _FieldChoice(click.Choice[str]):
    """The values of a field of the recipe, looked up lazily: importing the recipe is slow."""

    def __init__(self, field: str) -> None:
        self._field = field
        self.case_sensitive = True

    @property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """The values."""
        from pretrain_sources.recipe import Recipe

        return get_args(Recipe.model_fields[self._field].annotation)


def _choice(name: str, field: str, text: str) -> Callable[..., Any]:
    return click.option(f"--{name}", field, type=_FieldChoice(field), help=text)


LABELLING = (
    click.option("--top-k", type=int, help="Masks to keep: ranks 1 to K."),
    _choice("rank-by", "rank_by", "How to rank masks."),
    _choice("overlap", "overlap", "Which mask wins where two overlap."),
    _choice("uncovered", "uncovered", "Pixels outside all masks: class 0, or ignored."),
    click.option("--min-area", "min_area_px", type=int, help="Drop masks smaller than this, in pixels."),
    click.option("--max-area", "max_area_frac", type=float, help="Drop masks larger than this share of the frame."),
    click.option("--binary/--ranked", default=None, help="Label every mask 1, or by its rank."),
)


@click.group(cls=Group)
def corpus() -> None:
    """Make, relabel, check or export a corpus of pseudo-labels."""


@corpus.command("make")
@click.option("--pool", type=FOLDER, required=True, help="Folder of unlabelled thermal images.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the corpus; repeating a killed call resumes it.")
@click.option(
    "--recipe",
    default="satir",
    show_default=True,
    metavar="NAME|FILE",
    help="Source, such as satir/top-4.",
)
@click.option(
    "--teacher", metavar="NAME", help="sam, felzenszwalb, masks.json, a folder of amg.py, or module:function."
)
@click.option("--model", help="SAM: vit_h, vit_l, vit_b, sam_tiny, or module:function.")
@click.option(
    "--checkpoint", help="SAM: file of weights, or sam-tiny (shipped, not Meta's). Default: Meta's, downloaded."
)
@click.option("--points-per-batch", type=click.IntRange(1, 65_536), help="SAM: prompts per batch; limits memory.")
@with_(*LABELLING, WEIGHTS)
@click.option("--jobs", type=JOBS, help="Images in parallel. Default: one per core; one for SAM.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="SAM: where it computes. Default: cuda where torch sees a GPU."
)
def corpus_make(
    pool: Path,
    out: Path,
    recipe: str,
    teacher: str | None,
    weights: Path,
    jobs: int | None,
    device: str | None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Make a corpus from a pool of unlabelled images.

    A teacher segments every image, and its masks become label maps.
    """
    from bench.cli import corpora, extras

    sam = {name: settings.pop(name) for name in ("model", "checkpoint", "points_per_batch")}
    chosen = corpora.recipe_of(recipe, teacher, settings, **sam)
    if chosen.teacher.kind != "python":
        extras.require("train")
    made, speed = corpora.make(pool, chosen, out, weights, jobs, lambda note: say(note, err=True), device)
    say(corpora.summary(made, out, speed))


@corpus.command()
@click.argument("source", metavar="CORPUS", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of the new corpus.")
@with_(*LABELLING)
def rerank(source: Path, out: Path, **settings: Any) -> None:  # noqa: ANN401
    """Make a new corpus from the masks stored in CORPUS.

    Applies other labelling rules without running the teacher again.
    """
    from bench.cli import corpora

    made, speed = corpora.rerank(source, out, settings)
    say(corpora.summary(made, out, speed))


@corpus.command("check")
@click.argument("folder", metavar="CORPUS", type=FOLDER)
@click.option("--classes", type=click.IntRange(2, 255), help="Number of classes, for a corpus that was made elsewhere.")
@click.option("--images", type=FOLDER, help="Folder of its images. Default: CORPUS/images.")
def corpus_check(folder: Path, classes: int | None, images: Path | None) -> None:
    """Check every image and label map of CORPUS.

    CORPUS is a folder with images/ and labels/.
    """
    from bench.cli import corpora, listing

    say(listing.corpus_report(folder, *corpora.check(folder, classes, images)))


@corpus.command("export")
@click.argument("folder", metavar="CORPUS", type=FOLDER)
@click.option("--coco", "out", type=OUT_FILE, required=True, help="Output file, .json.")
def corpus_export(folder: Path, out: Path) -> None:
    """Write the masks of CORPUS as a COCO file.

    It has compressed run lengths and both scores, in the teacher's order; a card reads it as teacher {kind: coco, path: FILE}.
    """
    from bench.cli import extras
    from pretrain_sources.corpus.export import export_coco

    extras.require("train")
    images, masks = export_coco(folder, out)
    say(f"{out}: {masks} masks of {images} images")


@corpus.command("oracle")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--out", type=OUT_FILE, help="Output file. Default: oracle-masks.json in the folder of --weights.")
@WEIGHTS
def corpus_oracle(folder: Path, out: Path | None, weights: Path) -> None:
    """Write the masks of satir/oracle from the oriented boxes of a target's pool.

    DIR holds unlabelled/ and oriented_boxes/unlabelled.json, as the folder of hit-uav does.
    """
    from bench.cli import extras
    from bench.cli.progress import counting
    from pretrain_sources.corpus.oracle import write_oracle
    from pretrain_sources.teachers.ready_masks import ORACLE_FILE

    extras.require("train")
    path = out or weights / ORACLE_FILE
    with counting(f"filling the boxes of {folder}", "images") as report:
        made = write_oracle(folder, path, report)
    left = f"; {made.blank} images have none" if made.blank else ""
    left += f"; {made.open_regions} regions that the annotators left open are no masks" if made.open_regions else ""
    say(f"{path}: {made.masks} masks of {made.images} images{left}")
