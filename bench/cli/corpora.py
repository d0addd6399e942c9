"""`bench corpus make`, `rerank` and `check`: corpora outside of a matrix. Loads torch only if the teacher needs it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import BenchError
from bench.cli.progress import counting
from bench.plan.matrix import lookup
from pretrain_sources import teachers
from pretrain_sources.catalog import UnknownSourceError, catalog, find_source, own_card
from pretrain_sources.corpus import HALF, Corpus, Manifest, check_corpus, made_manifest, read_manifest
from pretrain_sources.corpus.ready_masks import open_masks
from pretrain_sources.corpus.writer import CorpusWriter, stored_masks
from pretrain_sources.pool import read_pool
from pretrain_sources.processors import cores
from pretrain_sources.recipe import SAM_TINY, CocoTeacher, FelzenszwalbTeacher, PromptedTeacher, Recipe, SamTeacher
from results.escape import for_terminal
from results.locks import HeldError, LocksError, locked
from safe_io.files import write_whole


def recipe_of(name: str, teacher: str | None, changes: Mapping[str, Any], **sam: Any) -> Recipe:  # noqa: ANN401
    """Return the recipe of a source or card file, with its teacher and settings replaced if given.

    teacher: sam, felzenszwalb, ready-made masks (a .json file or a folder), or module:function.
    sam: settings of SAM that are not None.

    Raises:
        BenchError: a name is unknown, or a value is invalid.
    """
    try:
        card = own_card(Path(name), catalog()) if name.endswith((".yaml", ".yml")) else find_source(name, catalog())
    except UnknownSourceError as error:
        raise BenchError(str(error)) from error
    recipe = card.recipe
    if recipe is None:
        raise BenchError(f"source '{name}' has no recipe: use satir or one of its variants")
    if card.subset or card.control or card.start != "random":
        raise BenchError(f"'{name}' is more than a recipe: use sources with a subset, control or start in a matrix")
    settings = recipe.teacher if teacher in (None, recipe.teacher.kind) else _teacher(str(teacher))
    sam = {field: value for field, value in sam.items() if value is not None}
    if sam.get("checkpoint") == "sam-tiny" and isinstance(
        settings, SamTeacher
    ):  # shipped weights come with their settings
        shipped = catalog()["satir/sam-tiny"].recipe
        assert shipped is not None
        settings = shipped.teacher
        del sam["checkpoint"]
    known = type(settings).model_fields if isinstance(settings, PromptedTeacher) else {}
    if foreign := [field for field in sam if field not in known]:
        raise BenchError(f"--{foreign[0].replace('_', '-')} is for the teacher sam, not for {settings.kind}")
    return _valid(recipe.model_dump() | {"teacher": settings.model_dump() | sam}, changes)


def make(
    pool: Path,
    recipe: Recipe,
    out: Path,
    weights: Path,
    jobs: int | None,
    noted: Callable[[str], None] = lambda note: None,
    device: str | None = None,
) -> tuple[Manifest, float | None]:
    """Make a corpus; return (manifest, images per second, or None if it exists). Repeating a killed call resumes it.

    noted: called with each note about the pool, such as images that were skipped. device: cpu or cuda, for SAM; by default
    cuda where torch sees a GPU.

    Raises:
        BenchError: the teacher or the device is not available, or `out` holds something else.
    """
    out = out.resolve()
    if pool.resolve() in (out, *out.parents):
        raise BenchError(
            f"--out {out} is inside the pool: its label maps would count as unlabelled images; choose another folder"
        )
    if stop := teachers.obstacle(recipe.teacher, weights):
        raise BenchError(stop)
    device = _device(recipe, device)
    identity = teachers.identity(recipe.teacher, weights)
    with counting(f"hashing {pool}", "images") as report:
        images = read_pool(pool, cache=_hash_cache(out), report=report)
    for note in images.notes:
        noted(f"the pool: {note}")
    key = {"teacher": identity, "labelling": recipe.labelling(), "pool": images.content_hash}
    if (known := _finished(out, key)) is not None:
        return known, None
    workers = _jobs(recipe, device) if jobs is None else jobs
    started = time.monotonic()
    with _locked(out, key), counting(f"making {out}", "images") as report:
        teacher = teachers.pinned(recipe.teacher, identity)
        masks = open_masks(teacher, weights, out / HALF, device, images.images)
        writer = CorpusWriter(out, pool, recipe, identity, device=masks.device_used, left_out=masks.left_out)
        manifest = writer.write(masks.over(images.images, workers), len(images.images), report)
    shutil.rmtree(out / HALF, ignore_errors=True)  # the corpus now holds everything
    return manifest, len(images.images) / (time.monotonic() - started)


def rerank(corpus: Path, out: Path, changes: Mapping[str, Any]) -> tuple[Manifest, float | None]:
    """Make another corpus from the masks of this one, without the teacher; return as `make` does.

    Raises:
        BenchError: a value is invalid, or `out` holds something else.
    """
    known = made_manifest(corpus)
    recipe = _valid(known.recipe, changes)
    key = {"teacher": known.teacher, "labelling": recipe.labelling(), "pool": known.pool_hash}
    if (made := _finished(out, key)) is not None:
        return made, None
    total, started = known.images + sum(known.refused.values()), time.monotonic()
    out = out.resolve()
    with _locked(out, key), counting(f"making {out}", "images") as report:
        writer = CorpusWriter(
            out, corpus / "images", recipe, known.teacher, device=known.device, left_out=known.left_out
        )
        made = writer.write(stored_masks(corpus), total, report)
    shutil.rmtree(out / HALF, ignore_errors=True)
    return made, total / (time.monotonic() - started)


def check(folder: Path, num_classes: int | None, images: Path | None) -> tuple[Corpus, list[str]]:
    """Read every file of a corpus; return (corpus, notes)."""
    with counting(f"checking {folder}", "images") as report:
        corpus, notes = check_corpus(folder, images, num_classes, report=report)
    manifest = read_manifest(folder)
    return corpus, [*_drawn_on(manifest), *notes] if manifest else notes


def summary(manifest: Manifest, out: Path, speed: float | None) -> str:
    """Summarise a corpus that was made."""
    lines = [
        f"{out}: {manifest.images} images with {manifest.masks} masks, {manifest.num_classes} classes, "
        f"{manifest.uncovered_frac:.0%} of the pixels in no kept mask"
    ]
    lines += [f"  {note}" for note in [*manifest.unused_lines(), *_drawn_on(manifest)]]
    lines += [f"  {speed:.2f} images per second"] if speed else ["  exists already"]
    return "\n".join(map(for_terminal, [*lines, f"  look at {out / 'contact.png'} before training on it"]))


def _drawn_on(manifest: Manifest) -> list[str]:
    """Say which device the masks of a corpus were drawn on, if it is known."""
    where = {"cpu": "a CPU", "cuda": "a CUDA GPU", None: ""}[manifest.device]
    return [f"masks drawn on {where}"] if where else []


def _valid(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(
            {**recipe, **{name: value for name, value in changes.items() if value is not None}}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{str(first['loc'][-1]).replace('_', '-')} {first['input']}: " if first["loc"] else ""
        raise BenchError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error


def _teacher(name: str) -> teachers.Settings:
    if name.endswith(".json") or Path(name).is_dir():
        return CocoTeacher(path=str(Path(name).absolute()))
    if ":" in name:
        return teachers.own(name)
    known: dict[str, SamTeacher | FelzenszwalbTeacher] = {"sam": SamTeacher(), "felzenszwalb": FelzenszwalbTeacher()}
    return lookup("teacher", name, known)


@contextmanager
def _locked(out: Path, key: Mapping[str, Any]) -> Iterator[None]:
    """Hold the lock of a corpus that is being made; refuse one begun with other settings or images."""
    (out / HALF).mkdir(parents=True, exist_ok=True)
    begun = out / HALF / "begun.json"
    with ExitStack() as held:
        try:
            held.enter_context(locked(out / HALF / ".lock"))
        except HeldError as error:
            again = "wait for it, or choose another folder with --out"
            raise BenchError(f"another process is making {out}: {error}; {again}") from None
        except LocksError as error:
            raise BenchError(str(error)) from error
        wanted = json.dumps(key, sort_keys=True).encode()
        if begun.exists() and begun.read_bytes() != wanted:
            raise BenchError(
                f"{out} was begun with other settings or images and is not finished: "
                "choose another folder with --out, or delete it"
            )
        write_whole(begun, wanted)
        try:
            yield
        finally:
            if not {path.name for path in (out / HALF).iterdir()} - {begun.name, ".lock"}:  # nothing was drawn
                begun.unlink()


def _finished(out: Path, key: Mapping[str, Any]) -> Manifest | None:
    """The manifest in `out`, if it is that of this corpus."""
    if not out.exists():
        return None
    known = read_manifest(out)
    if known is not None and {"teacher": known.teacher, "labelling": known.recipe, "pool": known.pool_hash} == key:
        return known
    if known is not None or (any(out.iterdir()) and not (out / HALF).is_dir()):
        raise BenchError(f"{out} already holds something else: choose another folder with --out, or delete it")
    return None


def _hash_cache(out: Path) -> Path:
    return out.with_name(f".{out.name}.hashes.json")


def _device(recipe: Recipe, wanted: str | None) -> str:
    """Return the device for a teacher: cuda only for SAM, if wanted or by default, where torch sees a GPU.

    Raises:
        BenchError: this teacher cannot choose, or there is no GPU.
    """
    if not isinstance(recipe.teacher, PromptedTeacher):
        if wanted is not None:
            raise BenchError(f"--device is for the teacher sam, not for {recipe.teacher.kind}")
        return "cpu"
    if wanted == "cpu":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise BenchError("--device cuda: torch sees no CUDA GPU on this machine; use --device cpu")
    return "cpu"


def _jobs(recipe: Recipe, device: str) -> int:
    """Images to label in parallel: one if the teacher uses the GPU or all cores, else one per core."""
    alone = isinstance(recipe.teacher, PromptedTeacher) and (recipe.teacher.model != SAM_TINY or device == "cuda")
    return 1 if alone else cores()
