"""`bench submit`: prepare, check, pack and verify submissions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    DATA,
    FOLDER,
    SEED,
    STORE,
    TRUSTED,
    WEIGHTS,
    Group,
    checked_weights,
    importable,
    say,
    with_,
)

if TYPE_CHECKING:
    from pretrain_sources.image_files import Pixels


@click.group(cls=Group)
def submit() -> None:
    """Submit a source of your own, or verify a submission."""


MANIFESTS = click.option(
    "--manifest",
    "manifests",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Manifest of a target, if none ships. May be repeated.",
)
SOURCE = click.argument("folder", type=click.Path(path_type=Path))


@submit.command("init")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["checkpoint", "corpus", "recipe", "simmim"]),
    required=True,
    help="What the source provides.",
)
def submit_init(name: str, kind: Any) -> None:  # noqa: ANN401
    """Create a folder NAME with a template card."""
    from bench.plan.matrix import CARD
    from bench.submission import submit

    folder = submit.init(name, kind)
    say(f"fill in {folder / CARD}, then: bench submit check {folder}")


@submit.command("check")
@SOURCE
@click.option(
    "--target",
    metavar="NAME",
    help="Also search the source's images for this target's test images, as `bench leaks` does.",
)
@click.option(
    "--pool", type=FOLDER, help="With --target: images that the source was made from, if the card names none."
)
@TRUSTED
@with_(WEIGHTS, DATA, STORE)
def submit_check(
    folder: Path,
    weights: Path,
    target: str | None,
    pool: Path | None,
    data: Path,
    store: Path,
    trusted: tuple[str, ...],
) -> int:
    """Check the card in FOLDER before submitting it.

    Lists every fault of the card and of the files that it names.

    Exit codes: 0 no fault, 1 otherwise.
    """
    from bench.submission import submit
    from results.store import Store

    folder = submit.card_folder(folder)
    faults, good = submit.check(folder, weights, _scene, importable(trusted))
    if target is not None and not faults:
        from bench.cli import leak_check

        try:
            good += leak_check.look([str(folder)], target, data, pool, Store(store)).splitlines()
        except leak_check.NoImagesError as error:
            good.append(f"leaks: no image was searched for test images of {target}, because {error}")
    return _print_judgement(
        folder,
        faults,
        good,
        f"ready to run: bench run --matrix ... --source {folder}, with a matrix that lists a backbone of the card",
    )


@submit.command("pack")
@SOURCE
@click.option("--out", type=FOLDER, default="submissions", show_default=True, help="Folder to put the bundle in.")
@MANIFESTS
@TRUSTED
@STORE
def submit_pack(folder: Path, out: Path, manifests: tuple[Path, ...], trusted: tuple[str, ...], store: Path) -> int:
    """Pack the card in FOLDER and its runs into a bundle to submit.

    A bundle holds records, evidence, certificates and checksums, but no images and no weights. It is verified at once.

    Exit codes: 0 no fault, 1 otherwise.
    """
    from bench.submission import pack, submit, verify
    from bench.submission.faults import texts
    from results.store import Store

    made, notes = pack.pack(submit.card_folder(folder), out, Store(store))
    judged = verify.judge(made, manifests, trusted=importable(trusted))
    return _print_judgement(
        made, texts(judged.faults), [*notes, *judged.done, *judged.notes], "ready to submit; see CONTRIBUTING.md"
    )


@submit.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@MANIFESTS
@TRUSTED
@click.option(
    "--spot", type=click.IntRange(1, 1_000_000), help="Predict this many random test images again with its networks."
)
@click.option("--networks", type=FOLDER, help="Folder of its networks. Default: BUNDLE-networks.")
@click.option("--reproduce", is_flag=True, help="Train one random run again.")
@click.option("--source", type=FOLDER, help="The submitter's folder: load the weights that its card names again.")
@click.option(
    "--pool", type=FOLDER, help="With --reproduce: folder of unlabelled images to use instead of the target's."
)
@click.option("--seed", type=SEED, help="Random seed. Default: a new one each time.")
@click.option("--by", help="Name of the reviewer, recorded in the verdict.")
@with_(DATA, STORE, WEIGHTS)
def submit_verify(
    bundle: Path,
    store: Path,
    weights: Path,
    data: Path,
    trusted: tuple[str, ...],
    **how: Any,  # noqa: ANN401
) -> int:
    """Verify a bundle by recomputing its scores.

    Recomputes every score from the evidence and checks all else against protocol, manifest and card. The verdict is written
    beside BUNDLE; the board shows it as a badge: claimed, recomputed, spot-checked or reproduced.

    Exit codes: 0 it passed, 1 wrong usage or input, 2 it failed.
    """
    from bench.cli.progress import counting
    from bench.submission.faults import texts
    from bench.submission.verdict import Check, Here, verify_bundle

    check = Check(**how, trusted=importable(trusted))
    judged, level = verify_bundle(bundle, Here(store, checked_weights(weights), data), check, counting)
    return 2 if _print_judgement(bundle, texts(judged.faults), [*judged.done, *judged.notes], level) else 0


def _scene() -> "Pixels":
    """A rendered frame to try networks on."""
    import numpy as np

    from bench import scenes

    return scenes.render(np.random.default_rng(0), (128, 160)).thermal


def _print_judgement(what: Path, faults: Sequence[str], good: Sequence[str], end: str) -> int:
    """Print a judgement; return 1 if it has a fault, else 0."""
    from results.escape import for_terminal

    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [*(f"  {line}" for line in good), *(f"FAULT {line}" for line in faults)]
    say("\n".join(map(for_terminal, [*lines, f"{what}: {count if faults else end}"])))
    return 1 if faults else 0
