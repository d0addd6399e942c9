"""`bench predict` and `export`: networks and studies for use outside of this project."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import BenchError
from bench.cli.options import FOLDER, STORE, TRUSTED, Command, importable, say

if TYPE_CHECKING:
    from results.store import Store


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


@click.command(cls=Command)
@click.argument("name", metavar="RUN|NETWORK|STORE", required=False)
@click.option("--onnx", type=FOLDER, metavar="FILE", help="Write the network of this run, or of this file, as ONNX.")
@click.option("--optuna", metavar="sqlite:///FILE", help="Write the tuning studies of this store for Optuna.")
@STORE
@TRUSTED
def export(name: str | None, onnx: Path | None, optuna: str | None, store: Path, trusted: tuple[str, ...]) -> None:
    """Write a network as ONNX, or all studies for Optuna's tools.

    With --onnx, RUN and NETWORK are those of `bench predict`. The file takes 8-bit grey images of any size and number; the
    normalisation is inside, and its metadata has the classes, the run and the sizes to resize and cut to. It is kept only if
    onnxruntime and torch agree.

    With --optuna, STORE is a folder of results, by default that of --store. A study that the file has already is completed and
    not repeated.
    """
    from results.store import Store

    if (onnx is None) == (optuna is None):
        raise BenchError("give either --onnx FILE, with a run or a network, or --optuna sqlite:///FILE, with a store")
    if optuna is not None:
        say(_studies(Store(store if name is None else name), optuna))
    elif name is None or onnx is None:
        raise BenchError("--onnx needs a run or a network: bench export RUN --onnx FILE")
    else:
        say(_network(name, onnx, Store(store), trusted))


def _network(name: str, out: Path, store: "Store", trusted: tuple[str, ...]) -> str:
    from bench.cli import extras

    extras.require("train")
    extras.require("export", "optuna_dashboard")
    from bench.export.networks import find_network
    from bench.export.onnx_file import refuse_unwritable, write_onnx
    from bench.train.kept import load_network

    path, about = find_network(name, store)
    refuse_unwritable(out)
    network = load_network(path, about, importable(trusted))
    say(f"exporting {about}: up to some minutes", err=True)
    agrees = write_onnx(network, about, out)
    facts = f"{len(about.classes)} classes of {about.target}, {out.stat().st_size / 1e6:.1f} MB"
    return f"{out}: {about}, {facts}; onnxruntime and torch agree on {agrees:.3%} of the pixels of made-up images"


def _studies(store: "Store", url: str) -> str:
    from bench.cli import extras
    from bench.cli.progress import counting

    extras.require("train")
    from bench.export.studies import file_of, studies_of, write_studies

    path = file_of(url)
    studies, left_out = studies_of(store)
    if not studies:
        why = "; ".join(left_out) or "every run has the default schedule, or none has begun"
        raise BenchError(f"{store.root} has no tuning study that can be written: {why}")
    for line in left_out:
        say(f"  left out: {line}", err=True)
    with counting(f"writing {path}", "studies") as report:
        written = write_studies(studies, path, report)
    known = f"; {written.known} were there already, {written.continued} of them got further trials" * (
        written.known > 0
    )
    return f"{path}: {written.new} studies and {written.trials} trials written{known}; see them with: optuna-dashboard {url}"
