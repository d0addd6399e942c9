"""Matrix files: which sources are crossed with which backbones on which target, under which protocol."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, field_validator

from backbones.spec import BACKBONES, DECODERS, BackboneSpec, Refused, find_backbone
from bench import BenchError
from bench.spec import Cell, Frozen, Protocol, find_file, load_protocol
from bench.targets import TARGETS
from bench.targets.mapping import map_spec
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog
from pretrain_sources.yamlfile import read_yaml, suggestion

T = TypeVar("T")  # Python 3.11 has no def f[T]


class MatrixFile(Frozen):
    """A matrix as it is written down."""

    description: str = ""
    target: str
    protocol: str
    sources: tuple[str, ...] = Field(min_length=1)
    backbones: tuple[str, ...] = Field(min_length=1)
    train_fracs: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(1.0,), min_length=1)

    @field_validator("backbones", mode="before")
    @classmethod
    def _no_space_after_the_colon(cls, names: object) -> object:
        for name in names if isinstance(names, list) else []:
            if isinstance(name, dict) and len(name) == 1 and next(iter(name)) in DECODERS:
                raise ValueError(f"write {':'.join(map(str, *name.items()))}, without a space after the colon")
        return names


@dataclass(frozen=True)
class Matrix:
    """A matrix with every name looked up."""

    name: str
    target: str
    protocol: Protocol
    cells: tuple[Cell, ...]
    sources: Mapping[str, SourceCard]
    backbones: Mapping[str, BackboneSpec]


def load_matrix(
    name: str,
    target: str | None = None,
    sources: Sequence[str] = (),
    backbones: Sequence[str] = (),
    smoke: bool = False,
) -> Matrix:
    """The matrix of that name or in that file; `sources` and `backbones` are globs that keep a part of it.

    Raises:
        BenchError: a name is unknown, a glob keeps nothing, or a name stands twice.
        FileError: the file is wrong.
    """
    path = find_file("matrix", name, "matrices")
    written = read_yaml(path, MatrixFile)
    protocol = load_protocol(written.protocol, beside=path.parent)
    protocol = protocol.smoke() if smoke else protocol
    cards = {n: lookup("source", n, catalog(), path) for n in _once(written.sources, path)}
    specs = {n: _backbone(n, path) for n in _once(written.backbones, path)}
    cards = _keep("source", cards, sources)
    specs = _keep("backbone", specs, backbones)
    target = target or written.target
    map_spec(lookup("target", target, TARGETS, path), protocol.class_map)  # refuses a map that does not fit
    cells = tuple(
        Cell(target=target, protocol=protocol.name, source=source, backbone=backbone, train_frac=frac)
        for backbone in specs
        for source in cards
        for frac in _once(written.train_fracs, path)
    )
    return Matrix(path.stem, target, protocol, cells, cards, specs)


def _backbone(name: str, path: Path) -> BackboneSpec:
    try:
        return find_backbone(name)
    except KeyError:
        return lookup("backbone", name, BACKBONES, path)  # raises, with a suggestion
    except Refused as error:
        raise BenchError(f"{path}: backbone '{name}': {error}") from error


def lookup(kind: str, name: str, known: Mapping[str, T], where: Path | None = None) -> T:
    """`known[name]`, or a BenchError that suggests the nearest name."""
    if name not in known:
        raise BenchError(f"{f'{where}: ' if where else ''}unknown {kind} '{name}'{suggestion(name, known)}")
    return known[name]


def _once(entries: Sequence[T], path: Path) -> Sequence[T]:
    if doubles := [entry for entry in entries if entries.count(entry) > 1]:
        raise BenchError(f"{path}: '{doubles[0]}' stands twice")
    return entries


def _keep(kind: str, known: dict[str, T], globs: Sequence[str]) -> dict[str, T]:
    for glob in globs:
        if not fnmatch.filter(known, glob):
            raise BenchError(f"--{kind} '{glob}' matches nothing in this matrix{suggestion(glob, known)}")
    return {
        name: value
        for name, value in known.items()
        if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
    }
