"""How a protocol was chosen: its settings changed one at a time, trained on train and scored on val. The test split is never read.

    python tests/benchmarks/ablations.py TABLE.yaml --data DIR --out ROWS.csv      go on where ROWS.csv ends
    python tests/benchmarks/ablations.py ROWS.csv                                  print the table

TABLE.yaml: target, base (a protocol), variants (name -> changes of the base), backbone, starts (none, imagenet), seeds. A run is a
row: val mIoU, IoU of each class, and predicted / true area of each class, over the whole split. Seeds come last, so that a table
that was stopped early is even. Training is the harness's own.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from backbones import imagenet, network
from backbones.registry import find_backbone
from backbones.transfer import load_encoder
from bench.score import confusion_matrix
from bench.spec import Protocol
from bench.targets import Target, find_target, open_target
from bench.targets.mapping import map_target
from bench.train.batches import Batches, choose, class_pixels, class_weights, open_split
from bench.train.loop import Training, fit, predict
from bench.train.loss import SegmentationLoss
from results import metrics

Row = dict[str, Any]
KEYS = ("variant", "start", "seed")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change the fields of a protocol, those of its parts one by one."""
    made = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(made.get(name), Mapping)
        made[name] = merged(made[name], value) if both else value
    return made


def protocol_of(table: Mapping[str, Any], variant: str) -> Protocol:
    fields = merged(table["base"], table["variants"][variant] or {})
    fields.setdefault("search", {name: pinned(value) for name, value in fields["default"].items()})
    fixed = {"name": "ablation", "description": "", "trials": 1, "replicates": 1, "pretrain_steps": 0}
    return Protocol.model_validate(fixed | fields)


def pinned(value: Any) -> Any:
    return [value] if isinstance(value, str) else {"low": value, "high": value}


def run(protocol: Protocol, target: Target, backbone: str, start: str, seed: int) -> Row:
    """Train once and score val."""
    began = time.monotonic()
    torch.set_num_threads(protocol.threads)
    target = map_target(target, protocol.class_map)
    classes, spec = target.spec.classes, find_backbone(backbone)
    frames = choose(target, "train", protocol)
    torch.manual_seed(seed)
    net = network.build(spec, len(classes))
    if start == "imagenet":
        origin = imagenet.locate(spec, Path("weights"))
        assert origin is not None
        load_encoder(net, imagenet.fetch(spec, origin, Path("weights")), torch.rand(1, 1, 64, 64), ["random"])
    batches = Batches(open_split(target, "train", protocol), protocol, len(classes), seed, protocol.finetune_steps)
    loss = SegmentationLoss(protocol.loss, class_weights(class_pixels(target, frames), protocol.loss))
    fit(net, batches, Training(protocol, protocol.default, loss, protocol.finetune_steps, seed), lambda *_, **__: None)
    trained = time.monotonic() - began
    total = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for frame, predicted in predict(net, open_split(target, "val", protocol), protocol, lambda *_, **__: None):
        total += confusion_matrix(predicted, frame.label, len(classes))
    # rows are the truth
    iou = total.diagonal() / (total.sum(0) + total.sum(1) - total.diagonal())
    area = total.sum(0) / total.sum(1)
    facts = {"miou": metrics.miou(total), "train_s": round(trained), "seconds": round(time.monotonic() - began)}
    facts |= {f"iou {name}": round(float(value), 4) for name, value in zip(classes, iou, strict=True)}
    return facts | {f"area {name}": round(float(value), 3) for name, value in zip(classes, area, strict=True)}


def wanted(table: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for seed in range(table["seeds"]):
        for variant in table["variants"]:
            for start in table["starts"]:
                yield variant, start, seed


def fill(table: Mapping[str, Any], data: Path, out: Path, part: int, parts: int) -> None:
    """Add the rows that are missing, the `part`-th of every `parts`."""
    target = open_target(find_target(table["target"]), data)
    protocols = {
        variant: protocol_of(table, variant) for variant in table["variants"]
    }  # raises before anything is trained
    for number, key in enumerate(wanted(table)):
        if number % parts != part or key in done(out):
            continue
        variant, start, seed = key
        row = dict(zip(KEYS, key, strict=True)) | run(protocols[variant], target, table["backbone"], start, seed)
        with out.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


def done(out: Path) -> set[tuple[str, str, int]]:
    if not out.is_file():
        return set()
    return {(row["variant"], row["start"], int(row["seed"])) for row in pd.read_csv(out).to_dict("records")}


def table_of(rows: pd.DataFrame) -> str:
    """Markdown: mean over seeds of each variant, from each start."""
    numbers = [name for name in rows if name not in (*KEYS, "iou background", "area background", "train_s", "seconds")]
    grouped = rows.groupby(["variant", "start"], sort=False)
    mean = grouped[numbers].mean().round(3)
    mean.insert(1, "range over seeds", (grouped["miou"].max() - grouped["miou"].min()).round(3))
    mean["minutes"] = (grouped["seconds"].mean() / 60).round(1)
    mean["runs"] = grouped.size()
    flat = mean.reset_index()
    lines = [" | ".join(map(str, row)) for row in (flat.columns, ["---"] * len(flat.columns), *flat.to_numpy())]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "data")))
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--part", default="0/1", help="K/N: the K-th of N processes that share the work, each with its own --out"
    )
    asked = parser.parse_args()
    if asked.out is None:
        print(table_of(pd.read_csv(asked.table)))
        return
    part, parts = map(int, asked.part.split("/"))
    fill(yaml.safe_load(asked.table.read_text()), asked.data, asked.out, part, parts)


if __name__ == "__main__":
    main()
