"""`bench corpus`: pseudo-labels outside of a matrix."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from bench.cli.options import FOLDER, JOBS, WEIGHTS, Group, say, with_


class _FieldChoice(click.Choice[str]):
    """The values of a field of the recipe, looked up when they are asked for: importing the recipe takes its time."""

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
    click.option("--top-k", type=int, help="Masks that are kept: ranks 1 to K."),
    _choice("rank-by", "rank_by", "What orders the masks."),
    _choice("overlap", "overlap", "Which of two masks a pixel belongs to."),
    _choice("uncovered", "uncovered", "Pixels in no mask: class 0, or ignored."),
    click.option("--min-area", "min_area_px", type=int, help="Smaller masks are left out, in pixels."),
    click.option("--binary/--ranked", default=None, help="Every mask is class 1, or its rank."),
)


@click.group(cls=Group)
def corpus() -> None:
    """Make pseudo-labels from unlabelled images, make them anew with other rules, or check a corpus."""


@corpus.command("make")
@click.option("--pool", type=FOLDER, required=True, help="Folder of unlabelled thermal images.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the corpus; a killed call goes on there.")
@click.option("--recipe", default="satir", show_default=True, metavar="NAME|FILE", help="A source such as satir/top-4.")
@click.option("--teacher", metavar="NAME", help="sam, felzenszwalb, or module:function of your own.")
@click.option("--model", help="SAM: vit_h, vit_l, vit_b, sam_tiny, or module:function.")
@click.option(
    "--checkpoint", help="SAM: a file of tensors, or sam-tiny (shipped, not Meta's); default: Meta's, which is fetched."
)
@click.option(
    "--points-per-batch", type=click.IntRange(1, 65_536), help="SAM: prompts decoded at a time; bounds the memory."
)
@with_(*LABELLING, WEIGHTS)
@click.option("--jobs", type=JOBS, help="Images at a time. Default: one a core; one for SAM.")
def corpus_make(
    pool: Path,
    out: Path,
    recipe: str,
    teacher: str | None,
    weights: Path,
    jobs: int | None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Ask a teacher for masks on every image of a pool and make label maps of them."""
    from bench.cli import corpora, extras

    sam = {name: settings.pop(name) for name in ("model", "checkpoint", "points_per_batch")}
    asked = corpora.recipe_of(recipe, teacher, settings, **sam)
    if asked.teacher.kind != "python":
        extras.require("train")
    made, speed = corpora.make(pool, asked, out, weights, jobs, lambda note: say(note, err=True))
    say(corpora.told(made, out, speed))


@corpus.command()
@click.argument("source", metavar="CORPUS", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of the new corpus.")
@with_(*LABELLING)
def rerank(source: Path, out: Path, **settings: Any) -> None:  # noqa: ANN401
    """Make other label maps of the masks that CORPUS holds; no teacher is asked."""
    from bench.cli import corpora

    made, speed = corpora.rerank(source, out, settings)
    say(corpora.told(made, out, speed))


@corpus.command("check")
@click.argument("folder", metavar="CORPUS", type=FOLDER)
@click.option("--classes", type=click.IntRange(2, 255), help="How many classes a ready-made corpus has.")
@click.option("--images", type=FOLDER, help="Where its images are, if not in CORPUS/images.")
def corpus_check(folder: Path, classes: int | None, images: Path | None) -> None:
    """Read every image and label map of CORPUS (images/ and labels/) and report whatever is wrong."""
    from bench.cli import corpora, listing

    say(listing.corpus_report(folder, *corpora.check(folder, classes, images)))
