"""`bench predict`: networks for use outside of this project."""

from pathlib import Path

import click

from bench.cli.options import FOLDER, STORE, TRUSTED, Command, importable, say


@click.command(cls=Command)
@click.argument("name", metavar="RUN|NETWORK")
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.option(
    "--out", type=FOLDER, required=True, help="Folder of the predictions; repeating a killed call completes it."
)
@click.option("--overlay", is_flag=True, help="Also write the images with the classes in colours, and a legend.")
@STORE
@TRUSTED
def predict(name: str, folder: Path, out: Path, overlay: bool, store: Path, trusted: tuple[str, ...]) -> int:
    """Predict the thermal images in FOLDER with the network of a run.

    RUN is SOURCE x BACKBONE r0 (one argument, so in quotes), the first digits of a run's fingerprint, or its folder; NETWORK is
    the file of one that was kept with `bench run --keep-weights`. Images are decoded, resized and cut into windows as the run's
    test images were. OUT/labels holds 8-bit index PNGs at the size of the images, and OUT/predictions.json the classes.

    Exit codes: 0 all images predicted, 1 wrong usage or input, 2 some images were left out, 3 stopped early.
    """
    from bench.cli import extras
    from bench.cli.progress import counting
    from results.store import Store

    extras.require("train")
    from bench.export.folder import left_out_lines, predict_folder
    from bench.export.networks import find_network
    from bench.train.kept import load_network

    path, about = find_network(name, Store(store))
    network = load_network(path, about, importable(trusted))
    with counting(f"predicting {folder}", "images") as report:
        done = predict_folder(network, about, folder, out, overlay, report)
    for line in (*done.notes, *left_out_lines(done)):
        say(f"  {line}", err=True)
    say(f"{out}: {done.images} label maps with {len(about.classes)} classes of {about.target}, by {about}")
    return 2 if done.left_out else 0
