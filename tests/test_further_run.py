"""Further test splits from the run to the verified submission, and forgeries of their evidence."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Bench
from elsewhere import SPLIT, further_of, open_with_elsewhere
from submitted import Packed, pack_one

from bench.plan.cost import work_of
from bench.plan.matrix import load_matrix
from bench.plan.outcome import Context
from bench.plan.plan import Sweep, make_plan
from bench.plan.units import FinalUnit
from bench.submission import verify
from bench.submission.reproduce import _compare
from bench.targets import open_target
from bench.targets.manifest import read_manifest, write_manifest
from bench.train import stages
from results import load_table, metrics
from results.board import board
from results.evidence import Evidence, sha256
from results.evidence_files import read_evidence
from results.further import on_split
from results.store import Store

FILE = "evidence-elsewhere.npz"


@pytest.fixture(scope="module")
def both(scenes: Path, shipped_protocol: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    """Two sources, run and packed on a target with a further test split. Read only."""
    with pytest.MonkeyPatch.context() as patch:
        open_with_elsewhere(patch)
        yield pack_one(scenes, tmp_path_factory.mktemp("both"))


@pytest.fixture
def here(both: Packed, tmp_path: Path) -> Packed:
    return both.copy(tmp_path)


def test_from_the_run_to_the_verdict(both: Packed, here: Packed, bench: Bench) -> None:
    for record in both.records():
        for split, scores in record.by_split.items():
            assert metrics.all_scores(read_evidence(Store(both.store), record, split)) == scores
        assert list(record.by_split) == ["test", SPLIT]
        assert record.by_split["test"].test_images == record.by_split[SPLIT].test_images == 3
    table = bench("table", "--store", both.store)
    assert "mIoU elsewhere" in table.out, table.err
    compared = bench("compare", "mine", "none", "--store", both.store, "--test", SPLIT)
    assert "scenes, test-v1, test split elsewhere" in compared.out, compared.err
    assert len(list(both.bundle.rglob(FILE))) == 2
    words = ("submit", "verify", here.bundle, "--manifest", here.manifest)
    result = bench(*words, "--spot", 4000, "--networks", both.networks, "--seed", 1)
    assert result.code == 0, result.out
    assert "12 random test images predicted again" in result.out, "of both splits"
    result = bench(*words, "--reproduce", "--source", both.folder, "--seed", 1)
    assert result.code == 0, result.out
    assert "the same scores, bit for bit" in result.out


def test_the_board_shows_a_submission_on_the_further_split(here: Packed, bench: Bench) -> None:
    store = here.bundle.parent.parent / "bench-store"
    shutil.copytree(here.store, store)
    for path in store.glob("*/*/mine"):
        shutil.rmtree(path)
    assert bench("submit", "verify", here.bundle, "--manifest", here.manifest).code == 0
    cells = board(on_split(load_table(store), SPLIT)).set_index("source")
    assert cells.loc["mine", "badge"] == "recomputed"
    assert set(cells["status"]) == {"ok"}


def test_progress_counts_the_frames_of_all_test_splits(both: Packed, scenes: Path, tmp_path: Path) -> None:
    store, target = Store(shutil.copytree(both.store, tmp_path / "store")), open_target("scenes", scenes)
    next(store.root.glob("scenes/*/none/*/r0-*/record.json")).unlink()
    sweep = Sweep(load_matrix(str(both.matrix)), store, scenes, tmp_path)
    [final] = make_plan(sweep, target, None).todo
    seen: list[tuple[int, int]] = []
    outcome = stages.execute(
        final, Context(store.root, target, tmp_path, None, None), lambda done, total, /, **_: seen.append((done, total))
    )
    assert outcome.status == "ok"
    assert isinstance(final, FinalUnit)
    whole = final.steps + 3 + 3
    assert work_of(final, target) == whole
    assert {total for _, total in seen} == {whole}
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == whole


def test_the_manifest_has_the_split(both: Packed, scenes: Path, tmp_path: Path) -> None:
    manifest, target = read_manifest(both.manifest), open_target("scenes", scenes)
    assert [image.id for image in manifest.further[SPLIT]] == [frame.id for frame in target.splits[SPLIT]]
    write_manifest(manifest, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == both.manifest.read_bytes()


def evidence_of(here: Packed, split: str = SPLIT) -> Evidence:
    return Evidence.from_bytes((here.run() / ("evidence.npz" if split == "test" else FILE)).read_bytes())


def put(here: Packed, new: Evidence) -> None:
    """Replace the evidence on the further split, its scores and its checksum."""
    (here.run() / FILE).write_bytes(new.to_bytes())
    here.edit(lambda fields: fields["further"].update({SPLIT: further_of(new).model_dump()}))


def score(fields: dict[str, Any]) -> None:
    fields["further"][SPLIT]["scores"]["miou"] = 0.9


def test_an_untouched_bundle_passes(here: Packed) -> None:
    assert not here.codes()


def test_a_further_score_is_edited(here: Packed) -> None:
    here.edit(score)
    assert here.codes() == {"evidence.scores"}


def test_the_evidence_is_missing(here: Packed) -> None:
    (here.run() / FILE).unlink()
    assert here.codes() == {"record.unreadable"}


def test_the_evidence_is_changed(here: Packed) -> None:
    old = evidence_of(here)
    (here.run() / FILE).write_bytes(Evidence(old.image_ids, old.groups, old.confusion + 1, old.weighted_f).to_bytes())
    assert here.codes() == {"evidence.unreadable"}


def test_the_evidence_is_that_of_test(here: Packed) -> None:
    put(here, evidence_of(here, "test"))
    assert here.codes() == {"evidence.split"}


def test_the_evidence_of_test_is_renamed(here: Packed) -> None:
    """Then the images are right, and their pixels are not."""
    old = evidence_of(here, "test")
    put(here, Evidence(evidence_of(here).image_ids, evidence_of(here).groups, old.confusion, old.weighted_f))
    assert here.codes() == {"images.pixels"}


def test_only_the_measure_is_made_perfect(here: Packed) -> None:
    old = evidence_of(here)
    put(here, Evidence(old.image_ids, old.groups, old.confusion, np.where(np.isnan(old.weighted_f), np.nan, 1.0)))
    assert here.codes() == {"evidence.perfect"}


def test_a_measure_is_impossible(here: Packed) -> None:
    old = evidence_of(here)
    put(here, Evidence(old.image_ids, old.groups, old.confusion, np.where(np.isnan(old.weighted_f), np.nan, 0.999)))
    assert here.codes() == {"evidence.bounds"}


def test_an_absent_class_has_a_measure(here: Packed) -> None:
    old = evidence_of(here)
    put(here, Evidence(old.image_ids, old.groups, old.confusion, np.nan_to_num(old.weighted_f)))
    assert here.codes() == {"evidence.absent_class"}


def test_an_image_is_left_out(here: Packed) -> None:
    old = evidence_of(here)
    put(here, Evidence(old.image_ids[1:], old.groups[1:], old.confusion[1:], old.weighted_f[1:]))
    assert here.codes() == {"images.missing"}


def test_the_evidence_has_fewer_classes(here: Packed) -> None:
    old = evidence_of(here)
    fewer = Evidence(old.image_ids, old.groups, old.confusion[:, :2, :2], old.weighted_f[:, :2])
    (here.run() / FILE).write_bytes(fewer.to_bytes())
    here.edit(lambda fields: fields["further"][SPLIT].update(evidence_sha256=sha256(fewer.to_bytes())))
    assert here.codes() == {"evidence.classes"}


def test_a_bad_split_is_not_mentioned(here: Packed) -> None:
    (here.run() / FILE).unlink()
    here.edit(lambda fields: fields.pop("further"))
    assert here.codes() == {"images.splits"}


def test_a_split_is_not_mentioned_though_its_evidence_is_there(here: Packed) -> None:
    here.edit(lambda fields: fields.pop("further"))
    assert here.codes() == {"evidence.split", "images.splits"}


def test_a_split_is_invented(here: Packed) -> None:
    old = evidence_of(here)
    ids = np.array([f"new-{name}" for name in old.image_ids])
    new = Evidence(ids, old.groups, old.confusion, old.weighted_f)
    (here.run() / "evidence-mars.npz").write_bytes(new.to_bytes())
    here.edit(lambda fields: fields["further"].update(mars=further_of(new).model_dump()))
    assert here.codes() == {"images.splits"}


def test_errors_of_another_run_are_copied(here: Packed) -> None:
    """The evidence on test is its own, and that elsewhere is of the other replicate."""
    put(here, Evidence.from_bytes((here.run(1) / FILE).read_bytes()))
    assert "copy.errors" in here.codes()


@pytest.mark.parametrize("name", ["evidence-.npz", "evidence-X.npz", "evidence-a.npz.npz", "evidence-a.txt"])
def test_other_files_do_not_belong_in_a_bundle(name: str, here: Packed) -> None:
    (here.run() / name).write_bytes(b"")
    here.repack()
    assert f"{name} is not allowed in a bundle" in "\n".join(map(str, verify.judge(here.bundle).faults))


def test_a_split_that_is_a_path_is_refused(here: Packed) -> None:
    here.edit(lambda fields: fields["further"].update({"../x": fields["further"].pop(SPLIT)}))
    assert here.codes() == {"record.unreadable"}


def test_a_reproduction_compares_every_split(both: Packed, here: Packed) -> None:
    judged = verify.judge(here.bundle, [here.manifest])
    theirs = judged.measured[0]
    assert theirs.further is not None
    off = theirs.further[SPLIT].scores.model_copy(update={"miou": 0.123})
    ours = theirs.model_copy(update={"further": {SPLIT: theirs.further[SPLIT].model_copy(update={"scores": off})}})
    assert _compare(judged, theirs, ours, "run") is None
    assert "miou on elsewhere 0.1230, recorded" in judged.faults[-1].text
    assert _compare(judged, theirs, theirs.model_copy(update={"further": None}), "run") is None
    assert "scored on test, recorded on test, elsewhere" in judged.faults[-1].text
