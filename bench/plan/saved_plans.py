"""Plans that a store keeps: what each matrix consists of, so that its cells can be asked about without it. One file a matrix."""

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
INPUTS = ("target_hash", "result_version", "weights", "settings")  # that a record tells of


def write_plan(matrix: Matrix, plan: Plan, store: Store) -> None:
    """Writes down the cells and units of a matrix."""
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
    """What a record of this cell says of its inputs."""
    fields = known_fields(unit)
    return {name: fields[name] for name in (*NAMES, *INPUTS)}


def read_plan(path: Path) -> Json:
    """What `write_plan` left.

    Raises:
        BenchError: it is torn.
    """
    try:
        return json.loads(gzip.decompress(path.read_bytes()))  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(
            f"{path} cannot be read: {error}; the next `bench run` of that matrix writes it anew"
        ) from error
