"""`bench ls` and `bench data`: what there is to run, and the files of a target."""

from pathlib import Path

import click

from bench.cli.options import DATA, SEED, Command, Group, say


@click.command(cls=Command)
@DATA
def ls(data: Path) -> None:
    """List targets, matrices, protocols, sources and backbones."""
    from bench.cli import listing

    say(listing.listing(data))


@click.group(cls=Group)
def data() -> None:
    """Check a target's files, or make the rendered one."""


@data.command()
@click.argument("target")
@DATA
def check(target: str, data: Path) -> None:
    """Read every file of TARGET and report counts, sizes, classes and whatever is wrong."""
    from bench.cli import listing
    from bench.targets import open_target, pool_notes

    opened = open_target(target, data)
    say(listing.data_report(opened, pool_notes(opened)))


@data.command()
@click.argument("target")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File of the manifest, .json."
)
@DATA
def manifest(target: str, out: Path, data: Path) -> None:
    """Write the ids and class totals of TARGET's test images, which submissions are judged by; no image is in it."""
    from bench.targets import manifest as manifests
    from bench.targets import open_target

    made = manifests.make_manifest(open_target(target, data))
    manifests.write_manifest(made, out)
    say(f"{len(made.test)} test images of {target} in {out}")


@data.command()
@click.argument("target", type=click.Choice(["scenes"]))
@click.option("--n", type=int, default=400, show_default=True, help="Labelled frames; as many go into the pool.")
@click.option("--size", metavar="HEIGHTxWIDTH", default="240x320", show_default=True, help="In pixels.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@DATA
def make(target: str, n: int, size: str, seed: int, data: Path) -> int:
    """Render TARGET into the data folder; what is there already is kept."""
    from bench import scenes
    from bench.cli.progress import counting

    folder, height_width = data / target, scenes.size_of(size)
    if folder.exists():
        same = scenes.made_by(folder, scenes.command(n, height_width, seed))
        say(f"{folder} is there already{'' if same else ', made otherwise'}; delete it to make it anew", err=not same)
        return 0 if same else 1
    try:
        with counting(f"rendering {target}", "frames") as report:
            frames = scenes.make(folder, n, height_width, seed, report)
    except KeyboardInterrupt:
        say("stopped; nothing was left behind", err=True)
        return 3
    say(f"{frames} frames in {folder}, half of them labelled")
    return 0
