"""Fairness rule 9: sources that have seen test images are marked, and compared on the other images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Bench
from examples import evidence, record

from results import known_leaks, load_table, metrics
from results.board import board
from results.board_choice import UnanswerableError
from results.bundle import Listing, Submission
from results.claims import judge, parse, sentence
from results.compare import compare
from results.evidence import Evidence, sha256
from results.known_leaks import LeakFinding, Near
from results.over_images import image_differences
from results.record_files import write_record
from results.replicate_scores import samples
from results.store import Store
from results.tiers import tiers
from results.uncertainty import Judge

IMAGES, GROUPS = 40, 8
SOURCES = ("none", "imagenet", "satir")


FIRST = {"satir": 1, "imagenet": 4}  # image from which on a source has seen some


def proof(source: str, replicate: int) -> Evidence:
    """Evidence in groups of five images; the truth is the same in all."""
    made = evidence(seed=SOURCES.index(source) * 10 + replicate, images=IMAGES)
    truth = evidence(seed=99, images=IMAGES).confusion.sum(2)
    confusion = np.zeros_like(made.confusion)
    rng = np.random.default_rng(SOURCES.index(source) * 10 + replicate)
    for image in range(IMAGES):
        for k in range(3):
            confusion[image, k] = rng.multinomial(truth[image, k], np.roll([0.7, 0.2, 0.1], k))
    groups = np.array([f"g{i // (IMAGES // GROUPS)}" for i in range(IMAGES)])
    return Evidence(made.image_ids, groups, confusion, np.where(truth > 0, rng.random((IMAGES, 3)), np.nan))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    for source in SOURCES:
        for replicate in range(3):
            run = proof(source, replicate)
            cell = sha256(source.encode())
            changes: dict[str, Any] = {"scores": metrics.scores(run), "evidence_sha256": sha256(run.to_bytes())}
            write_record(made, record(replicate, source=source, cell=cell, **changes), run)
    return made


def touch(store: Store, source: str, count: int, first: int = 0) -> frozenset[str]:
    """Write a finding that the source has seen `count` test images, from the `first` on."""
    ids = [f"image-{i}" for i in range(first, first + count)]
    finding = LeakFinding(
        source=source,
        target="soda",
        target_hash="t" * 64,
        images="0" * 64,
        image_count=100,
        test_images=IMAGES,
        touched={name: Near(image="x", similarity=1.0, how="the whole frame") for name in ids},
        threshold=0.5,
        expected_false_alarms=0.1,
        unreadable=0,
        notes=[],
        checked="2026-01-01T00:00:00+00:00",
    )
    known_leaks.write(store, finding)
    return frozenset(ids)


def clean_mious(source: str, ids: frozenset[str]) -> list[float]:
    """Scores computed directly from the evidence."""
    kept = [i for i in range(IMAGES) if f"image-{i}" not in ids]
    return [metrics.miou(proof(source, replicate).confusion[kept].sum(0)) for replicate in range(3)]


def test_pair_is_compared_on_images_clean_for_both(store: Store) -> None:
    before = compare(samples(load_table(store.root)), "satir", "none").iloc[0]
    ids = touch(store, "satir", 7)
    data = samples(load_table(store.root))
    after = compare(data, "satir", "none").iloc[0]
    assert after["mean_a"] == pytest.approx(np.mean(clean_mious("satir", ids)))
    assert after["mean_b"] == pytest.approx(np.mean(clean_mious("none", ids)))
    assert after["effect"] != before["effect"]
    assert any("satir has seen 7 of 40 test images (17.5%)" in note for note in data.notes)
    judgement = judge(parse("satir > none"), data)
    assert judgement.found.judged.effect == after["effect"]
    assert "satir has seen 7 of 40 test images (17.5%)" in sentence(judgement)
    assert "has seen" not in sentence(judge(parse("imagenet > none"), data))


def test_images_seen_by_either_source_are_left_out(store: Store) -> None:
    touch(store, "satir", 3)
    ids = touch(store, "imagenet", 6)
    row = compare(samples(load_table(store.root)), "satir", "imagenet").iloc[0]
    assert row["mean_a"] == pytest.approx(np.mean(clean_mious("satir", ids)))


def test_leak_does_not_change_other_pairs(store: Store) -> None:
    before = compare(samples(load_table(store.root)), "imagenet", "none").drop(columns="p_holm")
    touch(store, "satir", 7)
    assert compare(samples(load_table(store.root)), "imagenet", "none").drop(columns="p_holm").equals(before)


def test_too_many_seen_images(store: Store) -> None:
    touch(store, "satir", 9)  # 31 of 40 are left
    data = samples(load_table(store.root))
    with pytest.raises(UnanswerableError, match=r"78% are left, and 80% are required"):
        compare(data, "satir", "none")
    assert dict(zip(tiers(data)["source"], tiers(data)["untested"], strict=True)) == {
        "satir": 2,
        "none": 1,
        "imagenet": 1,
    }
    assert len(compare(data, "imagenet", "none")) == 1


def test_source_with_a_leak_is_marked_and_not_ranked(store: Store, bench: Bench) -> None:
    touch(store, "satir", 4)
    cells = board(load_table(store.root)).set_index("source")
    assert cells["touched"].to_dict() == {
        "satir": 0.1,
        "none": pytest.approx(np.nan, nan_ok=True),
        "imagenet": pytest.approx(np.nan, nan_ok=True),
    }
    out = bench("table", "--store", store.root).out
    assert "satir (has seen 10% of the test)" in out
    assert "satir has seen 10.0% of the test images; it is ranked and compared on the rest" in out
    touch(store, "satir", 9)  # 31 of 40 are left
    cells = board(load_table(store.root)).set_index("source")
    assert cells["rank"].isna().to_dict() == {"satir": True, "none": False, "imagenet": False}
    assert "under 80 % are left, so it has no rank" in bench("table", "--store", store.root).out


def test_ranks_are_on_the_images_clean_for_both(store: Store) -> None:
    """Each rank is one plus the number of sources ahead, each pair on the images that neither has seen."""
    plain, changed = board(load_table(store.root)).set_index("source")["rank"].to_dict(), 0
    for counts in ({"satir": 8}, {"satir": 3, "imagenet": 5}, {"none": 7}, {"imagenet": 6}, dict.fromkeys(SOURCES, 5)):
        touched = {name: touch(store, name, n, first=FIRST.get(name, 0)) for name, n in counts.items()}
        ids = dict.fromkeys(SOURCES, frozenset[str]()) | touched
        ranks = board(load_table(store.root)).set_index("source")["rank"].to_dict()
        changed += ranks != plain
        for one in SOURCES:
            others = [name for name in SOURCES if name != one]
            seen = {name: ids[one] | ids[name] for name in others}
            ahead = [np.mean(clean_mious(name, seen[name])) > np.mean(clean_mious(one, seen[name])) for name in others]
            compared = [len(seen[name]) <= IMAGES / 5 for name in others]
            assert ranks[one] == 1 + sum(np.logical_and(ahead, compared)), (counts, one)
        for name in SOURCES:
            touch(store, name, 0)
    assert changed, "some order must depend on the images"


def test_a_seen_source_whose_evidence_is_gone_has_no_rank(store: Store) -> None:
    touch(store, "satir", 4)
    runs = load_table(store.root)
    assert board(runs).set_index("source")["rank"].notna().all()
    [path, *_] = [path for path in store.root.rglob("evidence.npz") if "satir" in path.parts]
    path.write_bytes(proof("satir", 7).to_bytes())
    known_leaks._scores.cache_clear()
    assert board(runs).set_index("source")["rank"].isna().to_dict() == {"satir": True, "none": False, "imagenet": False}


def test_search_without_matches_keeps_the_rank(store: Store) -> None:
    touch(store, "satir", 0)
    cells = board(load_table(store.root)).set_index("source")
    assert cells.loc["satir", "touched"] == 0
    assert cells["rank"].notna().all()


def test_intervals_over_images_leave_out_seen_images(store: Store) -> None:
    touch(store, "satir", 5)
    data = samples(load_table(store.root))
    one = Judge(data).between("satir", "none")
    assert one.both.low is not None
    assert "7 groups of 35 test images" in one.note
    assert len(image_differences(store, data, "satir", "none")) == 35


@pytest.fixture
def bundled(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The runs of satir in a verified bundle next to the store."""
    runs = tmp_path / "submissions" / "satir" / "runs"
    runs.parent.mkdir(parents=True)
    (store.root / "soda").rename(tmp_path / "all")
    for folder in (tmp_path / "all").glob("*/*"):
        root = runs if folder.name == "satir" else store.root
        there = root / "soda" / folder.parent.name / folder.name
        there.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(there)
    listing = Listing(name="satir", made="2026-01-01", version="0", environment={}, files={})
    here = Submission("satir", runs.parent, "recomputed", listing)
    monkeypatch.setattr("results.table.submissions", lambda root: ([here], []))
    return store


def test_declared_leak_changes_no_score(bundled: Store, bench: Bench) -> None:
    """Otherwise a submitter could exclude the images with the worst scores."""
    before = samples(load_table(bundled.root))
    inside = Store(bundled.root.parent / "submissions" / "satir" / "runs")
    touch(inside, "satir", 7)
    after = samples(load_table(bundled.root))
    assert compare(after, "satir", "none").equals(compare(before, "satir", "none"))
    note = "the bundle of satir declares that it has seen 17.5% of the test images; this is not verified"
    assert any(note in each for each in after.notes)
    assert note in sentence(judge(parse("satir > none"), after))
    cells = board(load_table(bundled.root)).set_index("source")
    assert cells["says_touched"].to_dict()["satir"] == 0.175
    assert np.isnan(cells["touched"].to_dict()["satir"])
    assert cells["rank"].isna().to_dict() == {"satir": True, "none": False, "imagenet": False}
    out = bench("table", "--store", bundled.root).out
    assert "satir (declares 18% of the test seen) (submitted, recomputed)" in out
    assert note in out


def test_verified_leak_changes_scores(bundled: Store) -> None:
    touch(Store(bundled.root.parent / "submissions" / "satir" / "runs"), "satir", 7)
    ids = touch(bundled, "satir", 3)
    data = samples(load_table(bundled.root))
    row = compare(data, "satir", "none").iloc[0]
    assert row["mean_a"] == pytest.approx(np.mean(clean_mious("satir", ids)))
    assert not any("declares" in note for note in data.notes)
    assert board(load_table(bundled.root))["says_touched"].isna().all()


def test_damaged_finding_is_ignored(store: Store) -> None:
    touch(store, "satir", 4)
    known_leaks.path_of(store, "soda", "satir").write_text("{")
    assert board(load_table(store.root))["touched"].isna().all()


def test_a_row_without_seen_images_has_no_score_of_all_images(store: Store) -> None:
    row = load_table(store.root).query("source == 'satir'").iloc[0].to_dict()
    images = frozenset(f"image-{i}" for i in range(8))
    clean = known_leaks.clean_row(store.root, row, images)
    wanted = metrics.all_scores(known_leaks.without(proof("satir", int(row["replicate"])), images))
    assert {name: clean[name] for name in wanted.model_dump()} == wanted.model_dump()
