"""Plans saved in a store: the cells and units of each matrix, one file a matrix."""

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
from results.store import Store, write_atomic

NAMES = ("target", "protocol", "source", "backbone", "train_frac")  # of a cell
INPUTS = ("target_hash", "result_version", "weights", "settings")  # inputs in a record


def write_plan(matrix: Matrix, plan: Plan, store: Store) -> None:
    """Save the cells and units of a matrix."""
    units: dict[str, Json] = {}
    cells: dict[Cell, Json] = {}
    for final in plan.finals:
        kept = cells.setdefault(final.cell, {"cell": final.cell_fingerprint, "expected": _expected(final), "runs": []})
        kept["runs"].append(final.fingerprint)
        for unit in (final, *all_needed(final)):
            needs = [need.fingerprint for need in unit.needs]
            units[unit.fingerprint] = {"kind": unit.kind, "unit": str(unit), "needs": needs}
    data = json.dumps({"cells": list(cells.values()), "units": units}).encode()
    write_atomic(store.root / "plans" / f"{matrix.name}.json.gz", gzip.compress(data, 1, mtime=0))


def _expected(unit: FinalUnit) -> Json:
    """Return the inputs that a record of this cell must have."""
    fields = known_fields(unit)
    return {name: fields[name] for name in (*NAMES, *INPUTS)}


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
