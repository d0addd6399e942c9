"""Check a bundle: recompute its scores from its evidence, and compare all it declares with what is known here.

A bundle that passes is `recomputed`: the scores follow from the evidence, which is of the right images under the right protocol.
Only predicting (`spot`) or training (`reproduce`) again shows that the evidence is genuine.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from backbones.registry import known_backbone, stranger_code
from bench.submission.bundle_checks import card_faults, cell_faults, finding_faults
from bench.submission.copies import Comparison, places, read_known
from bench.submission.faults import Fault
from bench.submission.identity import SHOWN
from bench.submission.judged import Judged
from bench.submission.record_checks import run_faults
from bench.targets.manifest import Manifests, read_manifest, shipped_manifests
from results import bundle
from results.record import RunRecord
from results.record_files import read_records, run_folders
from results.store import RUNS, Store, StoreError


def judge(
    folder: Path, manifests: Sequence[Path] = (), others: Path | None = None, trusted: Collection[str] = ()
) -> Judged:
    """Check the bundle or store in this folder, without executing anything in it or trusting its paths.

    manifests: of targets without a shipped one. others: a further store whose runs and submissions the bundle must not copy,
    besides those that are shipped or beside it. trusted: backbones `module:function` that may be imported.

    Raises:
        BundleError: it cannot be opened. BenchError: a manifest cannot be read.
    """
    judged = _opened(folder)
    judged.trusted = trusted
    if not judged.faults:
        _read(judged)
    if judged.faults:
        return judged  # changed files cannot be checked further
    known = {**shipped_manifests(), **{made.key: made for made in map(read_manifest, manifests)}}
    store = Store(judged.runs)
    judged.faults += list(_code_faults(judged))
    for record in judged.records:
        if stranger_code(record.backbone, trusted) is not None:
            continue
        where = store.folder_of(record).relative_to(store.root).as_posix()
        judged.faults += [fault.at(where) for fault in _of_run(judged, record, store, known)]
    if not judged.faults:
        judged.faults += list(cell_faults(judged))
        judged.faults += list(finding_faults(judged, known))
        judged.places = places(folder, judged.name, others)
        judged.faults += list(_copy_faults(judged))
    _sum_up(judged)
    return judged


def _opened(folder: Path) -> Judged:
    """Open a store, or a bundle after checking its files and card."""
    if not (folder / bundle.BUNDLE).is_file() and run_folders(Store(folder)):
        return Judged(folder, folder, None, [])
    listing, faults = bundle.listed(folder)
    judged = Judged(folder, folder / RUNS, listing.name, [Fault("bundle.files", text) for text in faults])
    if not faults:
        judged.done.append(f"{len(listing.files)} files match {bundle.BUNDLE}")
        judged.faults += card_faults(judged, listing.name)
    return judged


def _read(judged: Judged) -> None:
    try:
        judged.records, unreadable = read_records(Store(judged.runs))
    except StoreError as error:
        judged.faults.append(Fault("record.unreadable", str(error)))
        return
    for one in unreadable:
        where = one.path.relative_to(judged.folder).as_posix()
        judged.faults.append(Fault("record.unreadable", f"{where}: {one.why}"))
    if not judged.measured:
        judged.faults.append(Fault("bundle.empty", "no successful run in the bundle"))


def _of_run(judged: Judged, record: RunRecord, store: Store, known: Manifests) -> list[Fault]:
    try:
        return list(run_faults(record, store, judged, known))
    except ModuleNotFoundError:  # a fault of this installation, not of the bundle
        raise
    except Exception as error:  # untrusted files can fail in unforeseen ways
        why = f"check failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return [Fault("bundle.unforeseen", why)]


def _code_faults(judged: Judged) -> Iterator[Fault]:
    """One fault for each backbone that is code of its author, however many runs it has."""
    for name, count in Counter(record.backbone for record in judged.records).items():
        if (why := stranger_code(name, judged.trusted)) is not None:
            yield Fault("record.unknown_name", f"{count} runs of backbone {name!r:.{SHOWN}}, not known here: {why}")


def _copy_faults(judged: Judged) -> Iterator[Fault]:
    """Find runs that copy the predictions, network or initial weights of another run."""
    targets = {record.target for record in judged.records}
    own = list(read_known(Store(judged.runs), str(judged.folder), targets))
    comparison = Comparison(own, judged.places, judged.notes)
    yield from comparison.faults()
    judged.done.append(comparison.summary())


def _sum_up(judged: Judged) -> None:
    count = Counter(record.status for record in judged.records)
    if any(record.train_frac < 1 for record in judged.records):
        judged.notes.append("some runs declare that they used a part of the labels: only --reproduce can confirm it")
    judged.notes += [f"{n} runs ended as {status}" for status, n in count.items() if status != "ok"]
    if not judged.faults:
        for name in sorted({record.backbone for record in judged.records} & {*judged.trusted}):
            code = known_backbone(name, judged.trusted).encoder
            judged.notes.append(f"the code of {name} is the reviewer's own copy, {code}")
        done = f"{count['ok']} runs recomputed from their evidence: scores, replicates, budgets, images, identity"
        judged.done.append(done)
