"""Plans saved in a store: the cells and units of each matrix, one file a matrix."""

import gzip
import json
from pathlib import Path

from bench import BenchError
from bench.plan.matrix import Matrix, lookup
from bench.plan.plan import Plan
from bench.plan.records import known_fields
from bench.plan.unit import Json
from bench.plan.units import FinalUnit, all_needed
from bench.spec import Cell
from bench.targets import Target, shipped_targets
from bench.targets.card import TargetCard, TargetSpec, card_text
from pretrain_sources.config_file import read_yaml
from results.schedule_names import TUNED
from results.store import PLANS, Store, slug, write_atomic

NAMES = ("target", "protocol", "source", "backbone", "train_frac", "schedule_kind")  # of a cell, as in its records
INPUTS = ("target_hash", "result_version", "weights", "settings")  # inputs in a record


def write_plan(matrix: Matrix, plan: Plan, target: Target, store: Store) -> None:
    """Save the cells and units of a matrix, and the card of a target that does not ship: a bundle of its runs needs it."""
    units: dict[str, Json] = {}
    cells: dict[Cell, Json] = {}
    for final in plan.finals:
        kept = cells.setdefault(
            final.cell, {"cell": final.cell_fingerprint, "expected": _expected(final, target.spec), "runs": []}
        )
        kept["runs"].append(final.fingerprint)
        for unit in (final, *all_needed(final)):
            needs = [need.fingerprint for need in unit.needs]
            units[unit.fingerprint] = {"kind": unit.kind, "unit": str(unit), "needs": needs}
    data = json.dumps({"cells": list(cells.values()), "units": units}).encode()
    write_atomic(store.root / PLANS / f"{matrix.name}.json.gz", gzip.compress(data, 1, mtime=0))
    if target.card.name not in shipped_targets():
        write_atomic(target_file(store.root, target.card.name, target.content_hash), card_text(target.card).encode())


def _expected(unit: FinalUnit, spec: TargetSpec) -> Json:
    """Return the inputs that a record of this cell must have."""
    fields = known_fields(unit, spec)
    return {name: fields[name] for name in (*NAMES, *INPUTS)}


def target_file(root: Path, name: str, content_hash: str) -> Path:
    """Return where a store keeps the card of a target that does not ship."""
    return root / PLANS / f"target-{name}-{content_hash[:12]}.yaml"


def card_of(name: str, content_hash: str, root: Path) -> TargetCard:
    """Return the card of a target: the shipped one, or the one that the store keeps for this content.

    Raises:
        BenchError: there is none, or it cannot be read.
    """
    known = dict(shipped_targets())
    # the name may come from a stranger's record, so no path is made of it
    wanted = target_file(root, slug(name), content_hash).name
    for path in (root / PLANS).glob("target-*.yaml"):
        if path.name == wanted and (card := read_yaml(path, TargetCard)).name == name:
            known.setdefault(name, card)
    return lookup("target", name, known)


def read_plan(path: Path) -> Json:
    """Read a plan saved by `write_plan`.

    Raises:
        BenchError: the file is missing or damaged.
    """
    try:
        plan: Json = json.loads(gzip.decompress(path.read_bytes()))
        for cell in plan["cells"]:
            cell["expected"].setdefault("schedule_kind", TUNED)  # plans that are older than this field
        return plan
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{path} cannot be read: {error}; the next `bench run` of that matrix writes it again"
        ) from error
