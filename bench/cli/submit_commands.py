"""`bench submit`: a source of somebody's own, handed in and judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import DATA, FOLDER, SEED, STORE, WEIGHTS, Group, checked_weights, say, with_

if TYPE_CHECKING:
    from pretrain_sources.image_files import Pixels


@click.group(cls=Group)
def submit() -> None:
    """Hand in a source of your own, or judge what somebody handed in."""


SOURCE = click.argument("folder", type=click.Path(path_type=Path))


@submit.command("init")
@click.argument("name")
@click.option("--kind", type=click.Choice(["checkpoint", "corpus", "recipe"]), required=True, help="What it brings.")
def submit_init(name: str, kind: Any) -> None:  # noqa: ANN401
    """Write a folder NAME with a card to be filled in."""
    from bench.plan.matrix import CARD
    from bench.submission import submit

    folder = submit.init(name, kind)
    say(f"{folder / CARD} is to be filled in; then: bench submit check {folder}")


@submit.command("check")
@SOURCE
@click.option(
    "--target", metavar="NAME", help="Look for its test images among the source's images too, as `bench leaks`."
)
@click.option(
    "--pool", type=FOLDER, help="For --target: the images that the source was made from, where the card names none."
)
@with_(WEIGHTS, DATA, STORE)
def submit_check(folder: Path, weights: Path, target: str | None, pool: Path | None, data: Path, store: Path) -> int:
    """Judge the card in FOLDER, and what it names, as a reviewer does: every fault at once."""
    from bench.submission import submit
    from results.store import Store

    faults, good = submit.check(folder, weights, _scene)
    if target is not None and not faults:
        from bench.cli import leak_check

        try:
            good += leak_check.look([str(folder)], target, data, pool, Store(store)).splitlines()
        except leak_check.NoImagesError as error:
            good.append(f"not looked for leaks: {error}")
    return _print_judgement(folder, faults, good, f"it can be run: bench run --matrix ... --source {folder}")


@submit.command("pack")
@SOURCE
@click.option("--out", type=FOLDER, default="submissions", show_default=True, help="Where the bundle goes.")
@STORE
def submit_pack(folder: Path, out: Path, store: Path) -> int:
    """Make a bundle of the card in FOLDER and of its runs: records, evidence, certificates, checksums; no images, no weights."""
    from bench.submission import pack, verify
    from bench.submission.faults import texts
    from results.store import Store

    made, notes = pack.pack(folder, out, Store(store))
    judged = verify.judge(made)
    return _print_judgement(
        made, texts(judged.faults), [*notes, *judged.done, *judged.notes], "it can be handed in; see CONTRIBUTING.md"
    )


@submit.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    "manifests",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Of a target whose own does not ship.",
)
@click.option(
    "--spot", type=click.IntRange(1, 1_000_000), help="Predict so many random test images anew with its networks."
)
@click.option("--networks", type=FOLDER, help="Its networks. Default: the folder BUNDLE-networks.")
@click.option("--reproduce", is_flag=True, help="Train one random run of it again.")
@click.option("--source", type=FOLDER, help="The submitter's folder: the files that its card names are loaded anew.")
@click.option("--pool", type=FOLDER, help="For --reproduce: unlabelled images, in place of the target's own.")
@click.option("--seed", type=SEED, help="Of what is drawn at random. Default: another one each time.")
@click.option("--by", help="Who checks: stands in the verdict.")
@with_(DATA, STORE, WEIGHTS)
def submit_verify(bundle: Path, store: Path, weights: Path, data: Path, **how: Any) -> int:  # noqa: ANN401
    """Recompute every number of BUNDLE from its evidence and hold all it says against protocol, manifest and card.

    The verdict goes into a file beside it, from which the board takes its badge: claimed, recomputed, spot-checked, reproduced.
    Exit code: 0 it passed, 2 it did not.
    """
    from bench.cli.progress import counting
    from bench.submission.faults import texts
    from bench.submission.verdict import Check, Here, verify_bundle

    judged, level = verify_bundle(bundle, Here(store, checked_weights(weights), data), Check(**how), counting)
    return 2 if _print_judgement(bundle, texts(judged.faults), [*judged.done, *judged.notes], level) else 0


def _scene() -> "Pixels":
    """A rendered frame, on which networks are tried."""
    import numpy as np

    from bench import scenes

    return scenes.render(np.random.default_rng(0), (128, 160)).thermal


def _print_judgement(what: Path, faults: Sequence[str], good: Sequence[str], end: str) -> int:
    """Prints a judgement; 1 where there is a fault."""
    from results.escape import for_terminal

    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [*(f"  {line}" for line in good), *(f"FAULT {line}" for line in faults)]
    say("\n".join(map(for_terminal, [*lines, f"{what}: {count if faults else end}"])))
    return 1 if faults else 0
