"""`bench ls` and `bench data`: the names that can be used, and the files of a target."""

from pathlib import Path

import click

from bench import BenchError
from bench.cli.options import DATA, FOLDER, SEED, Command, Group, say


@click.command(cls=Command)
@DATA
def ls(data: Path) -> None:
    """List targets, matrices, protocols, sources and backbones."""
    from bench.cli import listing

    say(listing.listing(data))


@click.group(cls=Group)
def data() -> None:
    """Check the files of a target, write its card, or render synthetic ones."""


TARGET = click.argument("target", metavar="NAME|FILE")


@data.command("init")
@click.argument("folder", metavar="DIR", type=FOLDER)
def init(folder: Path) -> None:
    """Look at the images and label maps in DIR and write a card to be completed.

    The card is DIR/target.yaml. An existing one is kept.
    """
    from bench.targets.draft import draft
    from results.store import write_atomic

    path = folder / "target.yaml"
    if path.exists():
        raise BenchError(f"{path} exists already; delete it to write it again")
    text = draft(folder)
    write_atomic(path, text.encode())
    say(f"{text}\nwritten to {path}: complete it, then: bench data check {path}")


@data.command()
@TARGET
@DATA
def check(target: str, data: Path) -> None:
    """Check every file of a target and print counts, sizes and classes.

    The target is a shipped one by name, or a card file of your own (.yaml).
    """
    from bench.cli import listing
    from bench.targets import open_target, pool_notes

    opened = open_target(target, data)
    say(listing.data_report(opened, pool_notes(opened)))


@data.command()
@TARGET
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Output file, .json.")
@DATA
def manifest(target: str, out: Path, data: Path) -> None:
    """Write the manifest of a target.

    It lists ids and class totals of the test images, without images; submissions are checked against it.
    """
    from bench.targets import manifest as manifests
    from bench.targets import open_target

    made = manifests.make_manifest(open_target(target, data))
    manifests.write_manifest(made, out)
    more = "".join(f" and {len(images)} of {split}" for split, images in made.further.items())
    say(f"{len(made.test)} test images{more} of {target} listed in {out}")


@data.command()
@click.argument("target", type=click.Choice(["scenes"]))
@click.option(
    "--n", type=int, default=400, show_default=True, help="Labelled frames; as many unlabelled ones are added."
)
@click.option("--size", metavar="HEIGHTxWIDTH", default="240x320", show_default=True, help="In pixels.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Random seed.")
@DATA
def make(target: str, n: int, size: str, seed: int, data: Path) -> int:
    """Render the synthetic target into the data folder.

    An existing one is kept. Exit codes: 0 rendered or the same exists, 1 another exists, 3 stopped.
    """
    from bench import scenes
    from bench.cli.progress import counting

    folder, height_width = data / target, scenes.size_of(size)
    if folder.exists():
        same = scenes.made_by(folder, scenes.command(n, height_width, seed))
        say(
            f"{folder} exists already{'' if same else ', with other settings'}; delete it to render it again",
            err=not same,
        )
        return 0 if same else 1
    try:
        with counting(f"rendering {target}", "frames") as report:
            frames = scenes.make(folder, n, height_width, seed, report)
    except KeyboardInterrupt:
        say("stopped; nothing was kept", err=True)
        return 3
    say(f"{frames} frames in {folder}, half of them labelled")
    return 0
