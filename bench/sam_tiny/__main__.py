"""Train sam-tiny: python -m bench.sam_tiny OUT [--real DIR] [--steps N]. Two processes: torchrun --nproc-per-node 2 -m ...

Saves a checkpoint in OUT every 100 steps, from which the same command resumes, and finally sam_tiny.safetensors.
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
from bench.targets import open_target, shipped_targets
from pretrain_sources.hashing import derive_seed
from pretrain_sources.pool import read_pool
from pretrain_sources.teachers.sam_tiny import build
from safe_io.files import whole, write_whole

RATES = {True: 3e-4, False: 1e-3}  # of the encoder's ImageNet part, and of the rest
NEAR = 2.0  # gain of the projections that direct attention to a prompt's own place
WARM_UP = 100  # steps
DECAY = 0.01
PRINTED_EVERY, SAVED_EVERY = 20, 100  # steps
FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1")  # of the encoder: generic edge filters
PRETRAINED = "image_encoder.backbone."


def begin(seed: int, weights: Path) -> Sam:
    """Build the untrained model: encoder from ImageNet, the rest random; in eval mode, because batches are too small for
    the statistics of batch normalisation.

    Raises:
        ClickException: the ImageNet weights are unavailable.
    """
    spec = find_backbone("fpn-efficientnet-lite0")
    origin = imagenet.locate(spec, weights)
    stop = imagenet.obstacle(spec, origin, weights)
    if origin is None or stop is not None:
        raise click.ClickException(f"no ImageNet weights of {spec.encoder}: {stop or ''}")
    torch.manual_seed(derive_seed("sam-tiny", seed))
    model = build()
    tensors = imagenet.fetch(spec, origin, weights).tensors  # under the names of a network's encoder
    own = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    model.image_encoder.backbone.load_state_dict(own)
    for name, parameter in model.image_encoder.backbone.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    _begin_near(model)
    model.image_encoder.to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def _begin_near(model: Sam) -> None:
    """Initialise attention between prompts and image so that a prompt attends to its own place first.

    A query and a key at the same place have the same position encoding; projected by the same matrix they match best. With
    two random matrices a point learns its place only after hundreds of steps.
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
        kind.weight.mul_(0.3)  # the type of a prompt, relative to its place


def unlabelled(folder: Path) -> list[Path]:
    """List the frames to train on; labelled frames of a target are refused.

    Raises:
        ClickException: the folder holds labelled frames.
    """
    frames = [image.path.resolve() for image in read_pool(folder).images]
    for data in folder.resolve().parents:
        for name in shipped_targets():
            if (data / name).is_dir() and folder.resolve().is_relative_to(data / name):
                splits = open_target(name, data).splits
                labelled = {frame.image.resolve() for split in splits.values() for frame in split}
                if shared := labelled & set(frames):
                    raise click.ClickException(
                        f"--real {folder} holds {len(shared)} labelled frames of {name}: use its unlabelled/"
                    )
    return frames


class Training:
    """The state of a training, as stored in checkpoints, and its step."""

    def __init__(self, model: Sam) -> None:
        self.model, self.step = model, 0
        self.learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for name, p in self.learning.items() if name.startswith(PRETRAINED) == part], "rate": rate}
            for part, rate in RATES.items()
        ]
        self.optimizer = AdamW(groups, lr=0.0, weight_decay=DECAY)

    def resume(self, path: Path) -> None:
        """Resume from a checkpoint, if it exists."""
        if path.is_file():
            state = torch.load(path, map_location=self.model.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def keep(self, path: Path) -> None:
        """Write a checkpoint atomically."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        with whole(path) as aside:
            torch.save(state, aside)

    def learn(
        self, real: Sequence[Path], seed: int, steps: int, batch: int, prompts: int, rank: int, ranks: int
    ) -> tuple[float, float]:
        """Train one step of `steps` on this process's share of the batch; return (loss, mean IoU of the chosen masks)."""
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
    """Return the gradient, or zeros if there is none, as for candidates that no prompt of this process used."""
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
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images per step.")
@click.option("--prompts", type=click.IntRange(2), default=7, show_default=True, help="Prompts per image.")
@click.option("--seed", default=0, show_default=True)
def main(  # noqa: PLR0913 - one argument per option
    out: Path, real: Path | None, weights: Path, steps: int, stop: int | None, batch: int, prompts: int, seed: int
) -> None:
    """Train, and write the weights in half precision."""
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
        if rank == 0 and step % PRINTED_EVERY == 0:
            loss, iou = (sum(values) / len(values) for values in zip(*seen, strict=True))
            speed, seen = (time.monotonic() - started) / (step - first), []
            left = f"{speed:.2f} s a step, {speed * (last - step) / 60:.0f} min left"
            click.echo(f"step {step} of {steps}: loss {loss:.3f}, IoU {iou:.3f}; {left}")
        if rank == 0 and (step % SAVED_EVERY == 0 or step == last):
            training.keep(out / "checkpoint.pt")
    if rank == 0 and training.step == steps:
        half = {name: tensor.half().cpu().contiguous() for name, tensor in training.model.state_dict().items()}
        write_whole(out / "sam_tiny.safetensors", save(half))
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
