"""The backbones that a user names, in a matrix or on the command line, and whether the sources have checkpoints for them."""

from collections.abc import Collection, Iterable
from pathlib import Path

from backbones.registry import BACKBONES, find_backbone, installed
from backbones.spec import DECODERS, BackboneError, BackboneSpec
from bench import BenchError
from pretrain_sources.card import SourceCard
from pretrain_sources.config_file import suggestion
from safe_io.user_code import search_in

MOST_NAMES = 8  # in a message


def named_backbone(name: str, where: str = "") -> BackboneSpec:
    """Look up a backbone that the user names; one of the user's own is imported. where: the beginning of messages.

    Raises:
        BenchError: the name is unknown, or its backbone cannot be used.
    """
    try:
        return find_backbone(name)
    except KeyError:
        known = [*BACKBONES, *installed()]
        raise BenchError(f"{where}unknown backbone '{name}'{suggestion(name, known)}") from None
    except BackboneError as error:
        raise BenchError(f"{where}backbone '{name}': {error}") from error


def backbones_of(names: Iterable[str], path: Path) -> tuple[dict[str, BackboneSpec], tuple[Path, ...]]:
    """Look up the backbones of the matrix at `path`; return them and the folders that were searched for the user's own.

    The user's own has to keep the contract. Without one, no folder is searched.

    Raises:
        BenchError: a name is unknown, or its backbone cannot be used.
    """
    folders = (Path.cwd(), path.parent.absolute()) if any(map(_is_own, names)) else ()
    search_in(folders)
    specs = {name: named_backbone(name, f"{path}: ") for name in names}
    for name, spec in specs.items():
        if spec.builder == "own":
            from backbones.contract import require

            try:
                require(spec)
            except BackboneError as error:
                raise BenchError(f"{path}: backbone '{name}' {error}") from error
    return specs, folders


def _is_own(name: str) -> bool:
    return name in installed() or (":" in name and name.partition(":")[0] not in DECODERS)


def refuse_without_backbone(cards: Iterable[SourceCard], backbones: Collection[str], has: str, advice: str) -> None:
    """Raise a BenchError if a source has checkpoints for none of these backbones: all its cells would be skipped."""
    for card in cards:
        if card.checkpoints and not any(map(card.checkpoint_for, backbones)):
            wanted = dict.fromkeys(name for one in card.checkpoints for name in one.backbones)
            raise BenchError(
                f"no backbone fits '{card.name}': its card lists {_shortened(wanted)}; {has} {_shortened(backbones)}; {advice}"
            )


def _shortened(names: Collection[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(list(names)[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
