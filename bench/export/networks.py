"""The kept network that a user names: by a run of a store, or by its file."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import BenchError
from bench.plan.saved_plans import card_of
from bench.plan.unit_folder import NETWORK, is_kept
from bench.train.kept import KEEP, About, read_about
from results.marks import schedule_words
from results.record import RunRecord
from results.record_files import Unreadable, read_records
from results.store import RUNS, Store

SHOWN = 5  # runs in a message
DIGITS = re.compile(r"(?:r\d+-)?([0-9a-f]{6,64})")  # of a run's fingerprint, also as in the name of its folder


def find_network(name: str, store: Store) -> tuple[Path, About]:
    """Return (file, facts) of a network.

    name: its file; or a run, by the first digits of its fingerprint, by its folder, or as `SOURCE x BACKBONE r0`. Without `r0`
        it is replicate 0.

    Raises:
        BenchError: there is no such run, or several, or its network was not kept. StoreError: there is no store.
    """
    path = Path(name)
    if path.suffix == ".safetensors" or path.is_file():
        return path, read_about(path) or _about_near(path)
    store, record = _in_folder(path) if (path / "record.json").is_file() else (store, _run(name, store))
    if record.status != "ok":
        raise BenchError(f"{_title(record)} has no network: it ended as {record.status}, {record.reason}")
    if not is_kept(store, record.run):
        raise BenchError(f"the network of {_title(record)} was not kept in {store.root}: make it with {KEEP}")
    return store.unit_dir("final", record.run) / NETWORK, _about(record, store)


def _about(record: RunRecord, store: Store) -> About:
    return About.of(record, card_of(record.target, record.target_hash, store.root).coding.images)


def _about_near(path: Path) -> About:
    """Return the facts of a file without them, from the record of its run: in its store, or in the bundle beside it.

    Raises:
        BenchError: there is none.
    """
    whole = path.absolute()
    run = whole.parent.name if path.name == NETWORK else path.stem
    bundle = whole.parent.with_name(whole.parent.name.removesuffix("-networks"))
    for root in (whole.parents[min(3, len(whole.parents) - 1)], bundle / RUNS):
        store = Store(root)
        records = read_records(store)[0] if root.is_dir() and DIGITS.fullmatch(run) else []
        for record in records:
            if record.run == run:
                return _about(record, store)
    raise BenchError(
        f"{path} does not say which run it is of, and no store or bundle around it does: name the run instead"
    )


def _in_folder(folder: Path) -> tuple[Store, RunRecord]:
    folder = folder.resolve()
    store = Store(folder.parents[4] if len(folder.parents) > 4 else folder)
    records, unreadable = read_records(store, [folder.relative_to(store.root).as_posix()])
    for line in unreadable_lines(unreadable):
        raise BenchError(line)
    return store, records[0]


def _run(name: str, store: Store) -> RunRecord:
    records, unreadable = read_records(store)
    digits = DIGITS.fullmatch(name)
    if digits:
        runs = [record for record in records if record.run.startswith(digits[1])]
    else:
        runs = [record for record in records if name in _names(record)]
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise BenchError(f"'{name}' is {len(runs)} runs of {store.root}: name one by its digits: {_listed(runs)}")
    bad = "".join(f"; {line}" for line in unreadable_lines(unreadable))
    if not records:
        raise BenchError(f"{store.root} has no run{' that can be read' if bad else ''}: start one with {KEEP}{bad}")
    how = "SOURCE x BACKBONE r0, or the first digits of its fingerprint"
    raise BenchError(f"no run '{name}' in {store.root}: name one as {how}: {_listed(records)}{bad}")


def unreadable_lines(unreadable: Sequence[Unreadable]) -> list[str]:
    """Return what to say about records that cannot be read: a line, or nothing."""
    count = len(unreadable)
    first = [f"{bad.path}: {bad.why}" for bad in unreadable[:1]]
    return [
        f"{count} record{'s' * (count > 1)} cannot be read, the next `bench run` repeats such runs: {one}"
        for one in first
    ]


def _names(record: RunRecord) -> tuple[str, ...]:
    cell = f"{record.source} x {record.backbone}"
    return (f"{cell} r{record.replicate}", *([cell] if record.replicate == 0 else []))


def _title(record: RunRecord) -> str:
    share = "" if record.train_frac == 1 else f" at {record.train_frac:.0%}"
    cell = f"{_names(record)[0]}{share}{schedule_words(record.schedule_kind)}"
    return f"run {record.run[:12]} ({cell}, {record.target}, {record.protocol})"


def _listed(records: Iterable[RunRecord]) -> str:
    first, *others = sorted(records, key=lambda record: (record.source, record.backbone, record.replicate))
    shown = [first, *others][:SHOWN]
    more = len(others) + 1 - len(shown)
    return "; ".join(map(_title, shown)) + (f"; and {more} more" if more else "")
