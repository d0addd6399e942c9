"""The file of a kept network: its tensors, and in its metadata all else that its predictions depend on."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from backbones.network import Network
from backbones.registry import known_backbone
from backbones.spec import BackboneError
from backbones.transfer import state_sha256
from bench import BenchError
from bench.spec import Protocol
from bench.train.weights import build_for
from pretrain_sources.image_files import ImageCoding
from results.frozen import Frozen
from results.limits import MOST, Text
from results.record import HEX, RunRecord
from safe_io.tensors import TensorFileError, read_content

KEY = "satir-bench"  # in the metadata of the file
KEEP = "`bench run ... --keep-weights` with the matrix of the run"


class About(Frozen):
    """What a kept network is and how it predicts."""

    run: str = Field(pattern=HEX)
    source: Text
    backbone: Text
    replicate: int = Field(ge=0, le=MOST)
    target: Text
    classes: tuple[Text, ...] = Field(min_length=2, max_length=255)
    protocol: Protocol
    images: ImageCoding | None = Field(description="of the target; null: images of 8 bits, as they are")
    network_sha256: Text | None = Field(description="sha256 over names and values of the tensors, as in the record")

    @classmethod
    def of(cls, record: RunRecord, images: ImageCoding | None) -> "About":
        """Return the facts of a run. images: the coding of the target's images.

        Raises:
            BenchError: another version of satir-bench made the record, and its protocol is none here.
        """
        same = ("run", "source", "backbone", "replicate", "target", "classes", "network_sha256")
        fields = {name: getattr(record, name) for name in same}
        return cls(**fields, protocol=protocol_of(record.settings, f"run {record.run[:12]}"), images=images)

    def __str__(self) -> str:
        return f"{self.source} x {self.backbone} r{self.replicate}"


def protocol_of(settings: Mapping[str, Any], what: str) -> Protocol:
    """Return the protocol in the settings of a record or of a plan. what: words for it.

    Raises:
        BenchError: it is missing, or of another version of satir-bench.
    """
    try:
        return Protocol.model_validate(settings["protocol"])
    except (KeyError, TypeError) as error:
        raise BenchError(f"{what} was made by another version of satir-bench: no protocol in its settings") from error
    except ValidationError as error:
        raise BenchError(f"{what} was made by another version of satir-bench: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'its metadata'}: {first['msg']}"


def to_bytes(network: Network, about: About) -> bytes:
    """Return the content of a safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={KEY: about.model_dump_json()})


def read_about(path: Path) -> About | None:
    """Return what the file of a network says about it; None if it says nothing, as older files do.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
        return About.model_validate_json(facts[KEY]) if KEY in facts else None
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or 'there is no such file'}") from error
    except SafetensorError as error:
        raise BenchError(f"{path} is not a network that was kept: {error}; name a {KEY} network.safetensors") from error
    except ValidationError as error:
        raise BenchError(f"{path} was kept by another version of satir-bench: {_first(error)}") from error


def load_network(path: Path, about: About, trusted: Collection[str] = ()) -> Network:
    """Build the network of a run and load its file. trusted: backbones `module:function` whose code may be imported.

    Raises:
        BenchError: the file is damaged or of another run, or its backbone cannot be used here.
    """
    try:
        tensors = read_content(path)
        if about.network_sha256 not in (None, state_sha256(tensors)):
            raise BenchError(
                f"{path} is not the network that run {about.run[:12]} was scored with: make it again with {KEEP}"
            )
        network = build_for(about.protocol, known_backbone(about.backbone, trusted), len(about.classes))
        network.load_state_dict(tensors)
    except TensorFileError as error:
        raise BenchError(f"{path}: {error.why}; or make it again with {KEEP}") from error
    except KeyError as error:
        raise BenchError(f"{path}: there is no backbone '{about.backbone}' here") from error
    except BackboneError as error:
        raise BenchError(f"{path}: backbone '{about.backbone}': {error}") from error
    except RuntimeError as error:  # torch's words for tensors that do not fit
        why = " ".join(str(error).split())[:200]
        raise BenchError(f"{path} is not a network of {about.backbone}: {why}") from error
    return network.eval()
