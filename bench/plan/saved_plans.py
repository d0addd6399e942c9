"""Plans saved in a store: the cells and units of each matrix, one file a matrix."""

import contextlib
import gzip
import json
from pathlib import Path

from bench import BenchError
from bench.plan.matrix import Matrix
from bench.plan.plan import Plan
from bench.plan.records import known_fields
from bench.plan.unit import Json
from bench.plan.units import FinalUnit, all_needed
from bench.spec import Cell
from bench.targets import Target, shipped_targets
from bench.targets.card import TargetCard, TargetSpec, card_text
from bench.targets.mapping import map_spec
from pretrain_sources.config_file import FileError, read_yaml
from results.store import Store, write_atomic

NAMES = ("target", "protocol", "source", "backbone", "train_frac")  # of a cell
INPUTS = ("target_hash", "result_version", "weights", "settings")  # inputs in a record


def write_plan(matrix: Matrix, plan: Plan, store: Store) -> None:
    """Save the cells and units of a matrix."""
    spec = map_spec(matrix.target_card.spec, matrix.protocol.class_map)
    units: dict[str, Json] = {}
    cells: dict[Cell, Json] = {}
    for final in plan.finals:
        kept = cells.setdefault(
            final.cell, {"cell": final.cell_fingerprint, "expected": _expected(final, spec), "runs": []}
        )
        kept["runs"].append(final.fingerprint)
        for unit in (final, *all_needed(final)):
            needs = [need.fingerprint for need in unit.needs]
            units[unit.fingerprint] = {"kind": unit.kind, "unit": str(unit), "needs": needs}
    data = json.dumps({"cells": list(cells.values()), "units": units}).encode()
    write_atomic(store.root / "plans" / f"{matrix.name}.json.gz", gzip.compress(data, 1, mtime=0))


def _expected(unit: FinalUnit, spec: TargetSpec) -> Json:
    """Return the inputs that a record of this cell must have."""
    fields = known_fields(unit, spec)
    return {name: fields[name] for name in (*NAMES, *INPUTS)}


def keep_target(target: Target, store: Store) -> None:
    """Save the card of a target that does not ship: a bundle of its runs needs it."""
    if target.card is not None and target.card.name not in shipped_targets():
        path = store.root / "plans" / f"target-{target.card.name}-{target.content_hash[:12]}.yaml"
        write_atomic(path, card_text(target.card).encode())


def kept_targets(root: Path) -> dict[str, TargetCard]:
    """Return the cards of targets in a store, and those that ship. A card that cannot be read is left out."""
    cards = dict(shipped_targets())
    for path in sorted((root / "plans").glob("target-*.yaml")):
        with contextlib.suppress(FileError):
            card = read_yaml(path, TargetCard)
            cards.setdefault(card.name, card)
    return cards


def read_plan(path: Path) -> Json:
    """Read a plan saved by `write_plan`.

    Raises:
        BenchError: the file is missing or damaged.
    """
    try:
        return json.loads(gzip.decompress(path.read_bytes()))  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(
            f"{path} cannot be read: {error}; the next `bench run` of that matrix writes it again"
        ) from error
