"""A unit is done if its files are complete, and a run whose inputs were deleted or damaged leaves no result."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
from conftest import Bench, run_inline, write_matrix
from examples import record_paths
from test_run import scores_of
from test_safe_io_files import leftovers

from bench.plan.outcome import Context
from bench.plan.unit_folder import CLAIM, NETWORK, SPENT, is_kept, is_left
from bench.plan.units import FinalUnit, Unit
from bench.train import stages, tune
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store, read_json_lines

SOURCES = ("satir/felzenszwalb", "satir/felzenszwalb~permuted")
PERMUTED = ("satir/felzenszwalb~permuted",)
Tear = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change the last byte."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def delete(path: Path) -> None:
    path.unlink()


def matrix(folder: Path, sources: tuple[str, ...] = SOURCES) -> Path:
    return write_matrix(folder, sources, replicates=1, trials=2, finetune_steps=2, max_frames=6)


def run(bench: Bench, path: Path, store: Path, *words: str) -> tuple[int, str]:
    ended = bench("run", "--matrix", path, "--executor", "inline", "--store", store, *words)
    return ended.code, ended.out + ended.err


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with finished runs of both sources. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    run_inline(matrix(folder), folder / "store", scenes)
    return folder / "store"


def by_source(store: Path) -> dict[str, RunRecord]:
    return {record.source: record for record in read_records(Store(store))[0]}


@pytest.mark.parametrize("tear", [cut, delete])
@pytest.mark.parametrize(
    ("file", "units"),
    [
        ("tune/*/trials.jsonl", 1),
        ("tune/*/tune.json", 1),
        ("pretrain/*/pretrain.json", 1),
        ("pretrain/*/history.csv", 1),
        ("pretrain/*/certificate.json", 1),
        ("pretrain/*/encoder.safetensors", 1),
        ("corpus/*/manifest.json", 0),  # no unfinished unit needs it
    ],
)
def test_damaged_files_are_made_again_with_the_same_result(
    file: str, units: int, tear: Tear, whole: Path, bench: Bench, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    torn = min(store.glob(f"units/{file}"))
    before = torn.read_bytes()
    tear(torn)
    for record in record_paths(Store(store)):
        record.unlink()
    code, output = run(bench, matrix(tmp_path), store)
    assert code == 0, output
    assert f"2 runs to do ({2 + units} units)" in output or (torn.name == "pretrain.json" and "(4 units)" in output), (
        output
    )
    assert scores_of(store) == scores_of(whole)
    assert all(record.pretraining for record in by_source(store).values())
    if units and torn.suffix != ".safetensors":  # the order of its header is not fixed
        assert torn.read_bytes() == before


@pytest.mark.parametrize(("file", "tear"), [("encoder.safetensors", flip), ("label", cut), ("label", delete)])
def test_damage_that_only_reading_reveals_is_repaired_by_the_next_run(
    file: str, tear: Tear, whole: Path, bench: Bench, tmp_path: Path
) -> None:
    """A changed value in a safetensors file of the same length; one label map of many."""
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    if file == "label":
        tear(next(store.glob("units/corpus/*/labels/**/*.png")))
        shutil.rmtree(store / "units/pretrain")
    else:
        for path in store.glob("units/pretrain/*/encoder.safetensors"):
            tear(path)
    for record in record_paths(Store(store)):
        record.unlink()
    code, output = run(bench, matrix(tmp_path), store)
    assert code == 2
    assert "run the same command again to make" in output
    assert "still to do" in output
    assert not by_source(store), "units to be repeated leave no record"
    for _ in range(2):  # damage to a pretraining may show only after the one that it starts from is repaired
        code, output = run(bench, matrix(tmp_path), store)
    assert code == 0, output
    assert scores_of(store) == scores_of(whole)


@pytest.mark.parametrize("table", ["images.parquet", "masks.parquet"])
def test_a_corpus_with_damaged_tables_is_not_done(table: str, whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    [folder] = store.glob("units/corpus/*")
    assert is_left(Store(store), "corpus", folder.name)
    cut(folder / table)
    assert not is_left(Store(store), "corpus", folder.name)


def test_complete_trials_are_not_run_again(
    whole: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    for name, tear in (("tune.json", cut), ("trials.jsonl", cut)):
        tear(min(store.glob(f"units/tune/*/{name}")))
        for record in record_paths(Store(store)):
            record.unlink()
        ran: list[int] = []
        real = tune.propose
        monkeypatch.setattr(tune, "propose", lambda p, done, real=real, ran=ran: ran.append(len(done)) or real(p, done))
        assert run(bench, matrix(tmp_path), store)[0] == 0
        assert ran == ([] if name == "tune.json" else [1]), "the first of two lines was complete"
        assert scores_of(store) == scores_of(whole)


@pytest.mark.parametrize(
    "line",
    ['{"number": 5, "schedule": {}, "val_miou": 0.5}', '{"number": 1}', '"text"', '{"number": 1, "x": 0}', "null"],
)
def test_a_line_that_is_not_the_next_trial_is_ignored(line: str, whole: Path, bench: Bench, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    path = min(store.glob("units/tune/*/trials.jsonl"))
    before = path.read_text()
    path.write_text(f"{before.splitlines()[0]}\n{line}\n")
    assert not is_left(Store(store), "tune", path.parent.name)
    for record in record_paths(Store(store)):
        record.unlink()
    assert run(bench, matrix(tmp_path), store)[0] == 0
    assert path.read_text() == before


def test_damaged_evidence_is_measured_again(whole: Path, bench: Bench, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    path = record_paths(Store(store))[0].with_name("evidence.npz")
    cut(path)
    assert "evidence.npz is damaged" in bench("table", "--store", store).err
    code, output = run(bench, matrix(tmp_path), store)
    assert code == 0
    assert "1 runs to do (1 units)" in output
    assert scores_of(store) == scores_of(whole)


def test_a_damaged_network_is_made_again(whole: Path, bench: Bench, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    path = matrix(tmp_path, ("satir/felzenszwalb",))
    assert run(bench, path, store, "--keep-weights")[0] == 0
    [network] = store.rglob(NETWORK)
    before = network.read_bytes()
    assert is_kept(Store(store), network.parent.name)
    for torn in (b"", before[:4], before[:100], before[:-1], before + b"x", b"\xff" * 64):
        network.write_bytes(torn)
        assert not is_kept(Store(store), network.parent.name)
    assert run(bench, path, store, "--keep-weights")[0] == 0
    assert network.read_bytes() == before


# -- deleted during a run --------------------------------------------------------------------------------------------


def all_of(store: Path, unit: Unit) -> None:
    shutil.rmtree(store)


def own(store: Path, unit: Unit) -> None:
    shutil.rmtree(store / "units" / unit.kind / unit.fingerprint)


def need(kind: str, name: str = "") -> Callable[[Path, Unit], None]:
    def gone(store: Path, unit: Unit) -> None:
        made = next(each for each in unit.needs if each.kind == kind)
        folder = store / "units" / kind / made.fingerprint
        (folder / name).unlink() if name else shutil.rmtree(folder)

    gone.__name__ = f"{kind}-{name}"
    return gone


def learner(store: Path, unit: Unit) -> None:
    assert unit.learner is not None
    shutil.rmtree(store / "units" / "pretrain" / unit.learner.fingerprint)


DELETED = (
    *(all_of, learner, need("tune"), need("tune", "trials.jsonl")),
    *(need("pretrain"), need("pretrain", "certificate.json")),
)


@pytest.mark.parametrize(
    ("when", "gone"), [*product(("begin", "trained", "scored"), DELETED), ("trained", own), ("scored", own)]
)
def test_a_final_whose_needs_are_deleted_never_ends_ok(
    gone: Callable[[Path, Unit], None],
    when: str,
    whole: Path,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    for record in record_paths(Store(store)):
        record.unlink()
    now: list[Unit] = []
    real_final, real_fit, real_score = stages.final, stages.fit, stages.score_on

    def final(unit: FinalUnit, context: Context, report: Callable[..., None]) -> None:
        now[:] = [unit]
        if when == "begin":
            gone(store, unit)
        real_final(unit, context, report)

    def fit(*words: object, **more: object) -> object:
        made = real_fit(*words, **more)  # type: ignore[arg-type]
        if when == "trained" and now:
            gone(store, now[0])
        return made

    def score(*words: object) -> object:
        made = real_score(*words)  # type: ignore[arg-type]
        if when == "scored":
            gone(store, now[0])
        return made

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, "final", final)
        patch.setattr(stages, "fit", fit)
        patch.setattr(stages, "score_on", score)
        code, output = run(bench, matrix(tmp_path, PERMUTED), store)
    assert code == 2, output
    assert "failed   final r0" in output
    assert "was deleted or damaged while" in output or "was deleted while" in output
    assert not list(store.glob("scenes/**/record.json")), "the next run repeats it without --retry"
    code, output = run(bench, matrix(tmp_path, PERMUTED), store)
    assert code == 0, output
    done = by_source(store)[PERMUTED[0]]
    assert done == by_source(whole)[PERMUTED[0]].model_copy(
        update={"finished": done.finished, "provenance": done.provenance, "cost": done.cost}
    )
    assert len(list(read_json_lines(Store(store).folder_of(done) / "trials.jsonl"))) == 2


@pytest.mark.parametrize("kind", ["corpus", "pretrain", "tune"])
@pytest.mark.parametrize("gone", [all_of, own])
def test_a_store_deleted_during_an_earlier_stage_is_filled_by_the_next_run(
    gone: Callable[[Path, Unit], None],
    kind: str,
    whole: Path,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, begun = tmp_path / "store", list[Unit]()
    path = matrix(tmp_path, ("satir/felzenszwalb",))
    real = stages._STAGES[kind]  # type: ignore[index]

    def stage(unit: Unit, context: Context, report: Callable[..., None]) -> None:
        def deleting(done: int, total: int, /, **facts: float) -> None:
            report(done, total, **facts)
            if not begun:
                begun.append(unit)
                assert (store / "units" / kind / unit.fingerprint / CLAIM).exists()
                gone(store, unit)

        real(unit, context, deleting)

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, kind, stage)  # type: ignore[misc]
        code, output = run(bench, path, store)
    assert begun
    records = read_records(Store(store))[0] if store.exists() else []
    assert all(record.status == "ok" and record.pretraining for record in records), output
    assert code == (0 if records else 2), output
    assert run(bench, path, store)[0] == 0
    [mine], [theirs] = (
        [r for r in read_records(Store(s))[0] if r.source == "satir/felzenszwalb"] for s in (store, whole)
    )
    assert (mine.scores, mine.tuning, mine.pretraining) == (theirs.scores, theirs.tuning, theirs.pretraining)


def test_a_certificate_of_an_earlier_version_is_valid(whole: Path, tmp_path: Path) -> None:
    """It did not record the sizes of the other files."""
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    for path in store.glob("units/pretrain/*/certificate.json"):
        fields = json.loads(path.read_text())
        assert fields.pop("file_bytes") is not None
        path.write_text(json.dumps(fields))
        assert is_left(Store(store), "pretrain", path.parent.name)


# -- a full disk -----------------------------------------------------------------------------------------------------


def done_units(store: Path) -> dict[Path, int]:
    return {path.relative_to(store): path.stat().st_mtime_ns for path in store.glob(f"units/*/*/{SPENT}")}


def test_a_full_disk_stops_the_run_and_keeps_finished_work(
    whole: Path, bench: Bench, small_disk: Path, tmp_path: Path
) -> None:
    path, store, ballast = matrix(tmp_path, ("satir/felzenszwalb",)), small_disk / "store", small_disk / "ballast"
    words = ("run", "--matrix", path, "--executor", "inline", "--keep-weights", "--store", store)
    before: dict[Path, int] = {}
    stages_done = []
    for left in (60, 200, 480, 640, 800, 1000):  # kB for the store
        ballast.write_bytes(os.urandom((1010 - left) * 1024))
        ended = bench(*words)
        assert ended.code == 1, ended.out
        assert "No space left on device. Finished work is kept; free some space" in ended.err
        assert len(ended.err.splitlines()) == 1
        assert not leftovers(small_disk)
        assert before.items() <= done_units(store).items()
        before = done_units(store)
        stages_done.append(len(before))
        ballast.unlink()
    assert stages_done[0] < stages_done[-1], "every attempt gets further"
    there = Path(shutil.copytree(store, tmp_path / "roomy"))
    code, output = run(bench, path, there)
    assert code == 0, output
    [record] = by_source(there).values()
    theirs = by_source(whole)["satir/felzenszwalb"]
    assert (record.scores, record.tuning, record.pretraining) == (theirs.scores, theirs.tuning, theirs.pretraining)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [2_000, 12_000, 40_000])  # bytes: the manifest, a table, the weights
def test_a_file_too_large_for_the_disk_is_reported(most: int, bench: Bench, tmp_path: Path) -> None:
    path, store = matrix(tmp_path, ("satir/felzenszwalb",)), tmp_path / "store"
    with no_file_above(most):
        ended = bench("run", "--matrix", path, "--executor", "inline", "--store", store)
    assert ended.code == 1, ended.out
    assert "File too large. Finished work is kept" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not leftovers(tmp_path)
    code, output = run(bench, path, store)
    assert code == 0, output
