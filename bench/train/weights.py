"""Encoder weights as units leave and take them, and the network that they go into."""

import json

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from backbones import network
from backbones.network import Network
from backbones.transfer import Certificate, EncoderWeights, load_encoder, state_sha256
from bench.plan.outcome import Context
from bench.plan.unit_folder import folder_of
from bench.plan.units import FinalUnit, PretrainUnit, TuneUnit
from bench.targets import Target
from bench.targets.frames import decode_image
from bench.train.needs import NeedsLostError
from pretrain_sources.hashing import derive_seed
from results.record import Pretraining
from results.store import Store

PROBE_FRAMES = 2  # train frames on which a certificate measures how far the features moved


def fresh_network(unit: PretrainUnit | TuneUnit | FinalUnit, replicate: str, num_classes: int) -> Network:
    """Random weights of a replicate: the same for every source, so that sources differ in nothing else."""
    torch.manual_seed(derive_seed(unit.protocol.seed, "init", replicate))
    return network.build(unit.backbone, num_classes)


def load(net: Network, weights: EncoderWeights, target: Target) -> Certificate:
    """Strict loading, judged on the target's first train frames of one size."""
    first, *others = target.splits["train"][:PROBE_FRAMES]
    images = {frame.id: decode_image(frame.image.read_bytes()) for frame in (first, *others)}
    images = {name: image for name, image in images.items() if image.shape == images[first.id].shape}
    probe = torch.from_numpy(np.stack(list(images.values())))[:, None].float() / 255
    return load_encoder(net, weights, probe, list(images))


def left_by(unit: PretrainUnit, context: Context) -> EncoderWeights:
    """The encoder that a pretrain unit left.

    Raises:
        NeedsLostError: the file is not what its certificate was made of; the unit counts as not done from now on.
    """
    folder = folder_of(Store(context.store), unit)
    path, certificate = folder / "encoder.safetensors", folder / "certificate.json"
    told = json.loads(certificate.read_bytes())["sha256"]
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if state_sha256(tensors) != told:
            raise SafetensorError("its tensors are not those of certificate.json")
    except SafetensorError as error:
        certificate.unlink(missing_ok=True)
        raise NeedsLostError(f"{path} is torn ({error}): run the same command again, which makes it anew") from error
    return EncoderWeights(tensors, tuple(json.loads(facts["mean"])), tuple(json.loads(facts["std"])), facts["origin"])


def learned_by(unit: FinalUnit, context: Context) -> Pretraining | None:
    """What the pretraining on a corpus that a unit's weights come from says of itself; None where there was none."""
    if unit.learner is None:
        return None
    path = folder_of(Store(context.store), unit.learner) / "pretrain.json"
    return Pretraining.model_validate_json(path.read_bytes())
