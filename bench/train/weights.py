"""Encoder weights passed between units, and the network that loads them."""

import json
from dataclasses import replace

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from backbones import network
from backbones.network import Network
from backbones.spec import BackboneSpec
from backbones.transfer import Certificate, EncoderWeights, load_encoder, state_sha256
from bench.plan.outcome import Context
from bench.plan.unit_folder import folder_of
from bench.plan.units import FinalUnit, PretrainUnit, TuneUnit
from bench.spec import Protocol
from bench.spec.parts import Normalisation
from bench.targets import Target
from bench.targets.frames import decode_image
from bench.train.needs import NeedsLostError
from pretrain_sources.hashing import derive_seed
from results.record import Pretraining
from results.store import Store

PROBE_FRAMES = 2  # train frames on which a certificate measures how far the features moved


def fresh_network(unit: PretrainUnit | TuneUnit | FinalUnit, replicate: str, num_classes: int) -> Network:
    """Build a network with the random weights of a replicate, equal for all sources."""
    torch.manual_seed(derive_seed(unit.protocol.seed, "init", replicate))
    return build_for(unit.protocol, unit.backbone, num_classes, on_target=not isinstance(unit, PretrainUnit))


def build_for(protocol: Protocol, backbone: BackboneSpec, num_classes: int, on_target: bool = True) -> Network:
    """Build a network with random weights and the heads that a protocol wants. on_target: False for a pretraining."""
    linear = on_target and protocol.transfer == "linear"
    net = network.build(backbone, num_classes, linear, auxiliary=protocol.loss.auxiliary_weight > 0)
    if protocol.normalisation is not None:
        net.set_normalisation(*protocol.normalisation.colours)
    return net


def load(
    net: Network, weights: EncoderWeights, target: Target, normalisation: Normalisation | None = None
) -> Certificate:
    """Load weights strictly; the certificate uses the target's first train frames of one size.

    normalisation: of the input, in place of that of the weights.
    """
    if normalisation is not None:
        mean, std = normalisation.colours
        weights = replace(weights, mean=mean, std=std)
    first, *others = target.splits["train"][:PROBE_FRAMES]
    images = {frame.id: decode_image(frame.image.read_bytes(), target.coding) for frame in (first, *others)}
    images = {name: image for name, image in images.items() if image.shape == images[first.id].shape}
    probe = torch.from_numpy(np.stack(list(images.values())))[:, None].float() / 255
    return load_encoder(net, weights, probe, list(images))


def left_by(unit: PretrainUnit, context: Context) -> EncoderWeights:
    """Read the encoder of a finished pretrain unit.

    Raises:
        NeedsLostError: the file does not match its certificate, which is deleted so that the unit runs again.
    """
    folder = folder_of(Store(context.store), unit)
    path, certificate = folder / "encoder.safetensors", folder / "certificate.json"
    expected = json.loads(certificate.read_bytes())["sha256"]
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if state_sha256(tensors) != expected:
            raise SafetensorError("its tensors do not match certificate.json")
    except SafetensorError as error:
        certificate.unlink(missing_ok=True)
        raise NeedsLostError(f"{path} is damaged ({error}): run the same command again to make it again") from error
    return EncoderWeights(tensors, tuple(json.loads(facts["mean"])), tuple(json.loads(facts["std"])), facts["origin"])


def learned_by(unit: FinalUnit, context: Context) -> Pretraining | None:
    """Return the summary of the pretraining on a corpus behind a unit's weights, or None."""
    if unit.learner is None:
        return None
    path = folder_of(Store(context.store), unit.learner) / "pretrain.json"
    return Pretraining.model_validate_json(path.read_bytes())
