"""The checkpoints that a source's card names: what identifies one, what stands in its way, and its tensors for an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.imagenet import Origin
from backbones.spec import BackboneSpec
from bench import BenchError
from pretrain_sources.card import Checkpoint, SourceCard
from safe_io.files import sha256_of, short_digest
from safe_io.web import DownloadError, download, unreachable_reason

if TYPE_CHECKING:
    from backbones.transfer import EncoderWeights


def identify(card: SourceCard, backbone: str, weights: Path) -> tuple[Origin | None, dict[str, Any] | None]:
    """(origin, what shapes a result) of the card's checkpoint for this backbone; both None where it has none.

    Raises:
        BenchError: the file is not there, or is not the one that the card means.
    """
    one = card.checkpoint_for(backbone)
    if one is None:
        return None, None
    path = _place(one, weights)
    sha256 = one.sha256
    if one.path is not None or path.is_file():
        try:
            found = sha256_of(path)
        except OSError as error:
            raise BenchError(f"source '{card.name}': cannot read its checkpoint {path}: {error.strerror}") from error
        if sha256 not in (None, found):
            raise BenchError(
                f"source '{card.name}': {path} has sha256 {short_digest(found)}, its card says {short_digest(str(sha256))}: "
                "put the right file there, or correct `sha256`"
            )
        sha256 = found
    return shaping(one, sha256, str(path))


def shaping(one: Checkpoint, sha256: str | None, place: str = "") -> tuple[Origin, dict[str, Any]]:
    """(origin, what shapes a result) of a checkpoint with these bytes."""
    told = one.model_dump(mode="json", include={"inside", "mean", "std"})
    told |= {"sha256": sha256, "rename": sorted(one.rename.items())}
    return Origin("card", f"{_name(one)} sha256:{sha256}", place), told


def obstacle(card: SourceCard, backbone: str, weights: Path) -> str | None:
    """What stands in the way of these weights, and what to do; or None."""
    one = card.checkpoint_for(backbone)
    if one is None:
        return f"the card of '{card.name}' names no checkpoint for {backbone}"
    if one.url is None or _place(one, weights).is_file():
        return None
    why = unreachable_reason(one.url)
    return f"{one.url} cannot be fetched: {why}; put the file into {_place(one, weights)}" if why else None


def brought(card: SourceCard, backbone: BackboneSpec, weights: Path) -> "EncoderWeights":
    """The tensors of the card's checkpoint under the encoder's own names. Not checked here: `transfer.load_encoder` does that.

    Raises:
        LoadError: the file cannot be read as tensors of this encoder.
    """
    from backbones.checkpoint_file import CheckpointError, read_tensors
    from backbones.fitting import fit
    from backbones.transfer import EncoderWeights, refusal

    one = card.checkpoint_for(backbone.name)
    assert one is not None
    path = _place(one, weights)
    try:
        if one.url is not None and not path.is_file():
            download(one.url, str(one.sha256), path, progress=False)
        tensors, opened = read_tensors(path, one.inside)
        fitted = fit(tensors, backbone, one.rename)
    except (CheckpointError, DownloadError) as error:
        raise refusal(_name(one), str(error)) from error
    mean, std = one.mean or backbone.mean, one.std or backbone.std
    told = "that of its card" if one.mean else "that of the backbone's ImageNet weights, because its card names none"
    reading = (*opened, *fitted.told, f"input normalisation: {told}")
    return EncoderWeights(fitted.tensors, mean, std, f"{_name(one)} sha256:{sha256_of(path)}", reading)


def _name(one: Checkpoint) -> str:
    """What the file is called; no folder of anybody's machine."""
    return one.path.name if one.path else str(one.url)


def _place(one: Checkpoint, weights: Path) -> Path:
    """Where the file is, or where it is fetched to."""
    if one.path is not None:
        return one.path
    return weights / "checkpoints" / f"{one.sha256}{Path(str(one.url)).suffix}"
