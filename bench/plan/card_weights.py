"""The checkpoints of a source card: identity, availability, and tensors for an encoder."""

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
    """Return (origin, identity) of the card's checkpoint for this backbone; both None if it has none.

    Raises:
        BenchError: the file is missing or does not match the card's sha256.
    """
    one = card.checkpoint_for(backbone)
    if one is None:
        return None, None
    path = _place(one, weights)
    sha256 = one.sha256
    if one.path is not None or path.is_file():
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise BenchError(f"source '{card.name}': cannot read its checkpoint {path}: {error.strerror}") from error
        if sha256 not in (None, actual):
            raise BenchError(
                f"source '{card.name}': {path} has sha256 {short_digest(actual)}, its card says {short_digest(str(sha256))}: "
                "replace the file or correct `sha256`"
            )
        sha256 = actual
    return shaping(one, sha256, str(path))


def shaping(one: Checkpoint, sha256: str | None, place: str = "") -> tuple[Origin, dict[str, Any]]:
    """Return (origin, identity) of a checkpoint with this sha256."""
    identity = one.model_dump(mode="json", include={"inside", "mean", "std"})
    identity |= {"sha256": sha256, "rename": sorted(one.rename.items())}
    return Origin("card", f"{_name(one)} sha256:{sha256}", place), identity


def obstacle(card: SourceCard, backbone: str, weights: Path) -> str | None:
    """Return why these weights are unavailable and what to do, or None."""
    one = card.checkpoint_for(backbone)
    if one is None:
        return f"the card of '{card.name}' has no checkpoint for {backbone}"
    if one.url is None or _place(one, weights).is_file():
        return None
    why = unreachable_reason(one.url)
    return f"{one.url} cannot be fetched: {why}; put the file at {_place(one, weights)}" if why else None


def brought(card: SourceCard, backbone: BackboneSpec, weights: Path) -> "EncoderWeights":
    """Read the card's checkpoint, with tensors renamed for the encoder. `transfer.load_encoder` checks them.

    Raises:
        LoadError: the file does not hold tensors of this encoder.
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
    normalisation = (
        "that of its card" if one.mean else "that of the backbone's ImageNet weights, because its card names none"
    )
    reading = (*opened, *fitted.notes, f"input normalisation: {normalisation}")
    return EncoderWeights(fitted.tensors, mean, std, f"{_name(one)} sha256:{sha256_of(path)}", reading)


def _name(one: Checkpoint) -> str:
    """Return the file name, without local folders, or the URL."""
    return one.path.name if one.path else str(one.url)


def _place(one: Checkpoint, weights: Path) -> Path:
    """Return the path of the file, or where it is downloaded to."""
    if one.path is not None:
        return one.path
    return weights / "checkpoints" / f"{one.sha256}{Path(str(one.url)).suffix}"
