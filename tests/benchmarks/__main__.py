"""All benchmarks in one run, printed as one table of ratios; `make benchmark` calls it.

    python tests/benchmarks [--data DIR] [--oracle PYTHON] [--peer]

--data DIR: may hold hit-uav/; without it scenes are rendered. --oracle PYTHON: of an environment with PySODMetrics.
--peer: train outside of the harness too, and look for planted test images (needs hit-uav, half an hour each).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.scenes import make as render

HERE = Path(__file__).parent
Row = tuple[str, str, str, str, str, bool | None]  # what, measured, reference, ratio, aim, reached


def measured(script: str, *words: object, python: str = sys.executable) -> Iterable[dict]:
    """The JSON lines that a script prints; its progress goes to the terminal."""
    done = subprocess.run([python, HERE / script, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def weighted_f(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("weighted_f.py", python=options.oracle):
        aim = 10 if row["kind"] == "smooth" else 5
        what = f"weighted F-measure, {row['kind'].replace('_', ' ')} (480x640, 8 classes)"
        reference = f"PySODMetrics {row['reference_ms']:.0f} ms"
        ratio = row["ratio"]
        yield what, f"{row['ms']:.0f} ms", reference, f"{ratio:.1f} x", f">= {aim} x", ratio >= aim
        apart = row["largest_difference"]
        yield what, "same values", "PySODMetrics", f"{apart:.0e} apart", "<= 1e-9", apart <= 1e-9


def training(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("training.py", options.data, options.target):
        what, took = f"training step, {row['backbone']} on {options.target} ({row['device']})", f"{row['ms']:.0f} ms"
        faster, above = row["times_user"], row["over_bare"]
        yield what, took, f"a user's loop {row['user_ms']:.0f} ms", f"{faster:.2f} x", ">= 1.3 x", faster >= 1.3
        yield what, took, f"the bare model {row['bare_ms']:.0f} ms", f"{above:+.1%}", "<= +10 %", above <= 0.1


def transfer(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("transfer.py"):
        what, faster, linear = (
            f"training step, {row['backbone']}, {row['transfer']}",
            row["times_finetune"],
            row["transfer"] == "linear",
        )
        aim, reached = (">= 2 x", faster >= 2) if linear else ("-", None)
        yield what, f"{row['ms']:.0f} ms", f"finetuning {row['finetune_ms']:.0f} ms", f"{faster:.1f} x", aim, reached


def scenes(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("scenes_speed.py"):
        speed = row["frames_per_s"]
        yield "scenes, 240x320, one core", f"{speed:.1f} frames/s", "-", "-", ">= 20 frames/s", speed >= 20


def sam(options: argparse.Namespace) -> Iterable[Row]:
    yield from masks("sam_speed.py", "segment-anything", options)


def hub_sam(options: argparse.Namespace) -> Iterable[Row]:
    yield from masks("hub_speed.py", "transformers' mask-generation", options)


def masks(script: str, package: str, options: argparse.Namespace) -> Iterable[Row]:
    """The speed of the generator against that of the package whose model it prompts, and whether it keeps the same masks."""
    for row in measured(script, options.data, options.target):
        ratio, aside, same = row["ratio"], f"{package} {row['stock_ms']:.0f} ms", row["same"]
        what = f"masks of a small SAM, {row['points']} x {row['points']} points, one core"
        yield what, f"{row['ms']:.0f} ms", aside, f"{ratio:.1f} x", ">= 2 x", ratio >= 2
        yield what, f"{row['masks']} masks", package, "same" if same else "others", "same", same


def prompts(options: argparse.Namespace) -> Iterable[Row]:
    rows: dict[str, dict[str, dict]] = {}
    for row in measured("sam_tiny.py", options.data):
        rows.setdefault(row["on"], {})[row["what"]] = row
    for kind, result in rows.items():
        own, untrained = result["sam-tiny"], result["untrained"]
        others = {name: row["point"] for name, row in result.items() if "point" in row and row is not own}
        best = max(others, key=lambda name: others[name])
        gain = own["point"] - others[best]
        aim, reached = (">= 0.60", own["point"] >= 0.6) if kind == "scenes" else (">= +0.10", gain >= 0.1)
        what = f"sam-tiny, {own['things']} {kind}"
        everything = ", ".join(f"{name} {value:.2f}" for name, value in others.items())
        yield f"{what}: IoU for a point", f"{own['point']:.3f}", everything, f"{gain:+.3f} to {best}", aim, reached
        boxes = f"untrained {untrained['box']:.2f}, filled {result['box filled']['box']:.2f}"
        yield (
            f"{what}: IoU for a box",
            f"{own['box']:.3f}",
            boxes,
            f"{own['box'] - result['box filled']['box']:+.3f}",
            "-",
            None,
        )
        agrees = own["correlation"]
        yield f"{what}: predicted and true IoU", f"r = {agrees:.2f}", "-", "-", ">= 0.4", agrees >= 0.4
        for name, row in result.items():
            if "masks" in row:
                yield (
                    f"{what}: {name}",
                    str(row["masks"]),
                    f"{row['uncovered']:.0%} of the pixels in none",
                    "-",
                    "-",
                    None,
                )


def corpora(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("corpus_speed.py"):
        if row["what"] == "label map":
            reference, ratio = f"nine masks in memory {row['plain_ms']:.1f} ms", row["ms"] / row["plain_ms"]
            yield (
                "label map from 100 stored masks, 512x640",
                f"{row['ms']:.1f} ms",
                reference,
                f"{ratio:.0f} x",
                "-",
                None,
            )
        else:
            what = f"a pool of {row['files']:,} tiny files, {row['what']} ({row['peak_mb']:.0f} MB)"
            reference, ratio = f"bare listing {row['bare_s']:.1f} s", row["s"] / row["bare_s"]
            aim, reached = ("<= 10 s", row["s"] <= 10) if row["what"] == "listed again" else ("-", None)
            yield what, f"{row['s']:.1f} s", reference, f"{ratio:.0f} x", aim, reached


def startup(options: argparse.Namespace) -> Iterable[Row]:
    rows = list(measured("startup.py"))
    python = next(row["s"] for row in rows if row["command"] == "python")
    for row in rows:
        what, aim = f"bench {row['command']} (1,000 runs in the store)", row["aim_s"]
        if row["command"] != "python":
            aimed = f"<= {aim} s" if aim else "-"
            reached = row["s"] <= aim if aim else None
            yield (
                what,
                f"{row['s']:.2f} s",
                f"python alone {python:.2f} s",
                f"{row['times_python']:.0f} x",
                aimed,
                reached,
            )


def harness(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("harness.py"):
        what, alone = "30 short units, two workers", f"one worker {row['one_s']:.0f} s"
        yield what, f"{row['two_s']:.0f} s", alone, f"{row['share']:.2f} x", "<= 0.65 x", row["share"] <= 0.65
        what, inside = "30 short units, one worker", f"inside of units {row['inside_s']:.0f} s"
        yield what, f"{row['one_s']:.0f} s", inside, f"{row['overhead']:+.1%}", "<= +3 %", row["overhead"] <= 0.03


def finished(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("finished.py"):
        took, first, aim = row["s"], row["first_s"], row["aim_s"]
        what = f"bench {row['command']}, all of {row['runs']:,} runs done"
        yield (
            what,
            f"{took:.1f} s",
            f"the first time {first:.1f} s",
            f"{first / took:.1f} x",
            f"<= {aim:.0f} s",
            took <= aim,
        )


def calibration(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("calibration.py", 4000):
        facts = [f"{key} {value}" for key, value in row.items() if key not in ("what", "value", "aim", "ok")]
        low, high = row["aim"] or (None, None)
        aim = "-" if low is None else f"<= {high:.0%}" if low == 0 else f"{low:.0%} to {high:.0%}"
        yield f"{row['what']} ({', '.join(facts)})", f"{row['value']:.1%}", "simulated truth", "-", aim, row["ok"]


def questions(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("questions.py"):
        what, aim = f"{row['what']}, {row['runs']} runs of 1,000 images, 21 classes", row["aim_s"]
        reached = None if aim is None else row["s"] <= aim and row["peak_gib"] <= 2
        aimed = "-" if aim is None else f"<= {aim} s, 2 GiB"
        result = f"{row['s']:.2f} s" + (f", {row['peak_gib']:.2f} GiB" if row["peak_gib"] else "")
        reference, ratio = f"{row['reference']} {row['reference_s']:.2f} s", row["reference_s"] / row["s"]
        yield what, result, reference, f"{ratio:.2f} x as fast", aimed, reached


def dashboard(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("dashboard.py"):
        what, aim = f"leaderboard of {row['runs']:,} runs", row["aim_first_s"]
        held = row["peak_gib"]
        first, empty = row["first_s"], row["empty_first_s"]
        aimed, reached = f"<= {aim:.0f} s, 1 GiB", first <= aim and held <= 1
        beside = f"an empty page {empty:.1f} s"
        result = f"{first:.1f} s, {held:.2f} GiB"
        yield f"{what}: first table, new browser", result, beside, f"{first - empty:+.1f} s", aimed, reached
        again, empty = row["again_s"], row["empty_again_s"]
        beside = f"an empty page {empty:.1f} s"
        yield (
            f"{what}: opened again",
            f"{again:.1f} s",
            beside,
            f"{again - empty:+.1f} s",
            f"<= {aim:.0f} s",
            again <= aim,
        )
        aim = row["aim_change_s"]
        reached = None if aim is None else row["change_s"] <= aim
        beside, more = f"an empty page {row['empty_change_s']:.2f} s", row["change_s"] - row["empty_change_s"]
        yield (
            f"{what}: a filter changed",
            f"{row['change_s']:.2f} s",
            beside,
            f"{more:+.2f} s",
            f"<= {aim} s" if aim else "-",
            reached,
        )


def peer(options: argparse.Namespace) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        words = ("hit-uav", "hit-uav-quick-v1", "--same", "--data", options.data, "--out", f"{folder}/rows.csv")
        rows = list(measured("peer.py", *words))
    for row in rows:
        mean = {name: sum(row[name]) / len(row[name]) for name in ("harness", "plain")}
        low, high = row["difference_95"]
        what = f"val mIoU on hit-uav, one recipe, {len(row['plain'])} seeds each"
        apart = f"{row['difference']:+.3f} ({low:+.3f}..{high:+.3f})"
        aim = f"within the seed sd {row['seed_sd']:.3f}"
        yield what, f"{mean['harness']:.3f}", f"plain loop {mean['plain']:.3f}", apart, aim, row["agrees"]


def leaks(options: argparse.Namespace) -> Iterable[Row]:
    for row in measured("leaks.py", "recall", options.data):
        if row["what"] == "falsely flagged":
            share, beside = row["share"], f"at most {row['expected_false_alarms']:.2f} images expected"
            what = f"near-duplicates: test images falsely flagged in {row['pool']} frames"
            yield what, f"{share:.1%}", beside, "-", "<= 1 %", share <= 0.01
        elif row["kind"] == "all of these":
            what, aim = f"near-duplicates: planted copies {row['what']}", "beyond" not in row["what"]
            yield (
                what,
                f"{row['share']:.1%}",
                "-",
                "-",
                ">= 95 %" if aim else "-",
                row["share"] >= 0.95 if aim else None,
            )
    for row in measured("leaks.py", "scale", options.data):
        what = f"near-duplicates of {row['tests']:,} images in {row['corpus']:,} JPEGs"
        result, most = f"{row['s']:.0f} s, {row['peak_gib']:.1f} GiB", "<= 600 s, 2 GiB"
        yield what, result, "-", "-", most, row["s"] <= 600 and row["peak_gib"] <= 2


def print_table(options: argparse.Namespace) -> None:
    parts: list[Callable[[argparse.Namespace], Iterable[Row]]] = [
        weighted_f,
        training,
        transfer,
        scenes,
        corpora,
        sam,
        hub_sam,
        prompts,
        startup,
        harness,
        finished,
        calibration,
        questions,
        dashboard,
    ]
    table = Table("what", "measured", "reference", "ratio", "aim", "", title=f"{os.cpu_count()} cores, {cpu()}")
    for part in [*parts, *([peer, leaks] if options.peer else [])]:
        print(f"measuring: {part.__name__}", file=sys.stderr, flush=True)
        for *cells, reached in part(options):
            table.add_row(*cells, {True: "ok", False: "SHORT", None: ""}[reached])
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "data")))
    parser.add_argument("--oracle", default=sys.executable)
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.target = "hit-uav"
        if not (options.data / "hit-uav").is_dir():
            options.data, options.target = Path(folder), "scenes"
            render(Path(folder) / "scenes", 100, (480, 640))
        print_table(options)


def cpu() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
