"""Trains sam-tiny: python -m bench.sam_tiny OUT [--real DIR] [--steps N]. Two processes: torchrun --nproc-per-node 2 -m ...

OUT keeps a checkpoint every 100 steps, from which the same command goes on, and at the end sam_tiny.safetensors.
"""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import save
from segment_anything.modeling import Sam
from torch import distributed
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from torch.optim import AdamW

from backbones import imagenet
from backbones.registry import find_backbone
from bench.sam_tiny.learn import losses_of
from bench.targets import TARGETS, open_target
from pretrain_sources.hashing import derive_seed
from pretrain_sources.pool import read_pool
from pretrain_sources.teachers.sam_tiny import build
from safe_io.files import whole, write_whole

RATES = {True: 3e-4, False: 1e-3}  # of the encoder's ImageNet part, and of the rest
NEAR = 2.0  # gain of the projections that let prompts look at their own place
WARM_UP = 100  # steps
DECAY = 0.01
TOLD_EVERY, KEPT_EVERY = 20, 100  # steps
FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1")  # of the encoder: edges are edges
PRETRAINED = "image_encoder.backbone."


def begin(seed: int, weights: Path) -> Sam:
    """The untrained model: its encoder from ImageNet, the rest random. In eval mode: batches are small, so the statistics
    of batch normalisation stay ImageNet's.

    Raises:
        ClickException: the ImageNet weights cannot be had.
    """
    spec = find_backbone("fpn-efficientnet-lite0")
    origin = imagenet.locate(spec, weights)
    stop = imagenet.obstacle(spec, origin, weights)
    if origin is None or stop is not None:
        raise click.ClickException(f"no ImageNet weights of {spec.encoder}: {stop or ''}")
    torch.manual_seed(derive_seed("sam-tiny", seed))
    model = build()
    given = imagenet.fetch(spec, origin, weights).tensors  # under the names of a network's encoder
    own = {name.removeprefix("model."): tensor for name, tensor in given.items()}
    model.image_encoder.backbone.load_state_dict(own)
    for name, parameter in model.image_encoder.backbone.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    _begin_near(model)
    model.image_encoder.to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def _begin_near(model: Sam) -> None:
    """Lets every attention between prompts and picture look at the prompt's own place first.

    A query and a key at the same place have the same position encoding; projected by the same matrix they fit each other
    best. With two random matrices a point finds its place only after hundreds of steps.
    """
    transformer = model.mask_decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossings += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossings:
        torch.nn.init.orthogonal_(attention.q_proj.weight, NEAR)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()
    for kind in model.prompt_encoder.point_embeddings:
        kind.weight.mul_(0.3)  # what a prompt is, against where


def unlabelled(folder: Path) -> list[Path]:
    """The frames to learn from; those of a target's train, val or test are refused.

    Raises:
        ClickException: there are such frames among them.
    """
    frames = [image.path.resolve() for image in read_pool(folder).images]
    for data in folder.resolve().parents:
        for name in TARGETS:
            if (data / name).is_dir() and folder.resolve().is_relative_to(data / name):
                splits = open_target(name, data).splits
                labelled = {frame.image.resolve() for found in splits.values() for frame in found}
                if taken := labelled & set(frames):
                    raise click.ClickException(
                        f"--real {folder} holds {len(taken)} labelled frames of {name}: take its unlabelled/"
                    )
    return frames


class Training:
    """A model on its way: what a checkpoint holds, and one step."""

    def __init__(self, model: Sam) -> None:
        self.model, self.step = model, 0
        self.learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for name, p in self.learning.items() if name.startswith(PRETRAINED) == part], "rate": rate}
            for part, rate in RATES.items()
        ]
        self.optimizer = AdamW(groups, lr=0.0, weight_decay=DECAY)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, if it is there."""
        if path.is_file():
            held = torch.load(path, map_location=self.model.device, weights_only=True)
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.step = held["step"]

    def keep(self, path: Path) -> None:
        """Writes a checkpoint, whole or not at all."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        with whole(path) as aside:
            torch.save(state, aside)

    def learn(
        self, real: Sequence[Path], seed: int, steps: int, batch: int, prompts: int, rank: int, ranks: int
    ) -> tuple[float, float]:
        """One step of `steps`, this process's share of the batch; (loss, mean IoU of the masks that were chosen)."""
        share = min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * self.step / steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        self.optimizer.zero_grad()
        places = range(rank, batch, ranks)
        loss, iou = losses_of(self.model, real, seed, self.step, places, prompts)
        (loss / batch).backward()  # type: ignore[no-untyped-call]
        if ranks > 1:
            flat = parameters_to_vector([_gradient(p) for p in self.learning.values()])
            distributed.all_reduce(flat)
            vector_to_parameters(flat, [_gradient(p) for p in self.learning.values()])
        clip_grad_norm_(self.learning.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item() / len(places), iou.mean().item()


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Zeros where none came, as for candidates that no prompt of this process asked for."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@click.command(help=__doc__)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--real", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Unlabelled thermal frames."
)
@click.option("--weights", type=click.Path(path_type=Path), default=Path("weights"), show_default=True)
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--stop", type=int, help="Stop after this step; the schedule stays that of --steps.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures a step.")
@click.option("--prompts", type=click.IntRange(2), default=7, show_default=True, help="Prompts a picture.")
@click.option("--seed", default=0, show_default=True)
def main(  # noqa: PLR0913 - an argument for each option
    out: Path, real: Path | None, weights: Path, steps: int, stop: int | None, batch: int, prompts: int, seed: int
) -> None:
    """Trains, and writes the weights in half precision."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    frames = unlabelled(real) if real else []
    training = Training(begin(seed, weights).to("cuda" if torch.cuda.is_available() else "cpu"))
    training.resume(out / "checkpoint.pt")
    first, last, started, seen = training.step, min(stop or steps, steps), time.monotonic(), []
    while training.step < last:
        seen.append(training.learn(frames, seed, steps, batch, prompts, rank, ranks))
        step = training.step
        if rank == 0 and step % TOLD_EVERY == 0:
            loss, iou = (sum(values) / len(values) for values in zip(*seen, strict=True))
            speed, seen = (time.monotonic() - started) / (step - first), []
            left = f"{speed:.2f} s a step, {speed * (last - step) / 60:.0f} min left"
            click.echo(f"step {step} of {steps}: loss {loss:.3f}, IoU {iou:.3f}; {left}")
        if rank == 0 and (step % KEPT_EVERY == 0 or step == last):
            training.keep(out / "checkpoint.pt")
    if rank == 0 and training.step == steps:
        half = {name: tensor.half().cpu().contiguous() for name, tensor in training.model.state_dict().items()}
        write_whole(out / "sam_tiny.safetensors", save(half))
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
