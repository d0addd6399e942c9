"""Tampering: each kind, with checksums repaired afterwards, is detected and named."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import yaml
from conftest import Bench
from numpy.typing import NDArray
from submitted import Packed, fingerprints

from backbones.transfer import state_sha256
from bench.submission import verify
from bench.submission.bounds import weighted_f_bounds
from bench.submission.faults import texts
from bench.targets.manifest import read_manifest, write_manifest
from results import bundle, known_leaks, load_table, metrics
from results.board import board
from results.board_choice import one_board
from results.bundle import BundleError
from results.evidence import Evidence, sha256
from results.known_leaks import LeakFinding, Near
from results.record import RunRecord
from results.replicate_scores import samples
from results.store import Store, slug


@pytest.fixture
def here(packed: Packed, tmp_path: Path) -> Packed:
    return packed.copy(tmp_path)


def faults(here: Packed, repack: bool = True, **where: Any) -> str:
    """All faults in one text; empty if it passes."""
    if repack:
        here.repack()
    return "\n".join(texts(verify.judge(here.bundle, [here.manifest], **where).faults))


def codes(here: Packed, repack: bool = True, **where: Any) -> set[str]:
    """The codes of all faults."""
    if repack:
        here.repack()
    return {fault.code for fault in verify.judge(here.bundle, [here.manifest], **where).faults}


def evidence_of(here: Packed, replicate: int = 0) -> Evidence:
    return Evidence.from_bytes((here.run(replicate) / "evidence.npz").read_bytes())


def replace_evidence(here: Packed, new: Evidence, replicate: int = 0) -> None:
    """Replace the evidence, and the scores and checksum that follow from it, as a careful forger would."""
    (here.run(replicate) / "evidence.npz").write_bytes(new.to_bytes())

    def change(fields: dict[str, Any]) -> None:
        fields["scores"] = metrics.scores(new).model_dump()
        fields["evidence_sha256"] = sha256(new.to_bytes())

    here.edit(change, replicate)


def changed(old: Evidence, **fields: Any) -> Evidence:
    values = {name: getattr(old, name).copy() for name in ("image_ids", "groups", "confusion", "weighted_f")}
    return Evidence(**values | fields)


def test_an_untouched_bundle_passes(here: Packed) -> None:
    assert not codes(here, repack=False)
    assert not codes(here)


def test_any_edit_shows_in_the_checksums(here: Packed) -> None:
    here.edit(lambda fields: fields["scores"].update(miou=0.9))
    (here.bundle / "more.txt").write_text("x")
    (here.run() / "history.csv").unlink()
    result = faults(here, repack=False)
    assert "record.json was changed after it was packed" in result
    assert "more.txt is not listed" in result
    assert "history.csv is listed in bundle.json but missing" in result


def test_a_score_is_edited(here: Packed) -> None:
    here.edit(lambda fields: fields["scores"].update(miou=0.9))
    assert "evidence.scores" in codes(here)


def test_a_class_is_edited(here: Packed) -> None:
    here.edit(lambda fields: fields["scores"]["class_iou"].__setitem__(0, 0.99))
    assert "evidence.scores" in codes(here)


@pytest.mark.parametrize("name", ["class_precision", "class_recall", "class_area_ratio"])
def test_a_score_of_a_class_that_older_records_lack_is_edited(name: str, here: Packed) -> None:
    here.edit(lambda fields: fields["scores"][name].__setitem__(0, 0.99))
    assert codes(here) == {"evidence.scores"}
    assert f"{name} is [...], but its evidence gives [...]" in faults(here)


def test_a_bundle_from_before_these_scores_passes_and_is_reproduced(here: Packed, bench: Bench) -> None:
    def older(fields: dict[str, Any]) -> None:
        for name in ("class_precision", "class_recall", "class_area_ratio"):
            del fields["scores"][name]
        del fields["provenance"]["val_frames"]

    for replicate in (0, 1):
        here.edit(older, replicate)
        path = here.run(replicate) / "history.csv"
        path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in path.read_text().splitlines()))
        assert path.read_text().startswith("step,loss,lr\n")
    assert not codes(here)
    words = ("submit", "verify", here.bundle, "--manifest", here.manifest, "--reproduce", "--source", here.folder)
    result = bench(*words, "--seed", 1)
    assert result.code == 0, result.out
    assert "the same scores, bit for bit" in result.out


def test_only_the_matrices_are_made_perfect(here: Packed) -> None:
    old = evidence_of(here)
    perfect = np.zeros_like(old.confusion)
    for image, truth in zip(perfect, old.confusion.sum(2), strict=True):
        np.fill_diagonal(image, truth)
    replace_evidence(here, changed(old, confusion=perfect))
    assert "evidence.perfect" in codes(here)


def possible(confusion: NDArray[np.int64], here: Packed) -> NDArray[np.float64]:
    """Weighted F-measures that these matrices allow, as a careful forger would compute them."""
    edge = {image.id: image.edge for image in read_manifest(here.manifest).test}
    ids = evidence_of(here).image_ids.tolist()
    bounds = weighted_f_bounds(confusion, np.array([edge[i] for i in ids]), 1.0)
    return np.where(confusion.sum(2) > 0, bounds.low + 0.5 * (bounds.high - bounds.low), np.nan)


def slightly_better(here: Packed) -> None:
    """Turn errors into hits within each row, keeping every total, with weighted F-measures to match."""
    old = evidence_of(here)
    better = old.confusion.copy()
    for image in better:
        row = int((image.sum(1) - np.diag(image)).argmax())
        wrong = image[row].copy()
        wrong[row] = 0
        moved = wrong // 2
        image[row] -= moved
        image[row, row] += moved.sum()
    assert metrics.scores(changed(old, confusion=better)).miou > metrics.scores(old).miou
    replace_evidence(here, changed(old, confusion=better, weighted_f=possible(better, here)))


def test_a_matrix_is_improved_without_the_measure(here: Packed) -> None:
    old = evidence_of(here)
    slightly_better(here)
    replace_evidence(here, changed(evidence_of(here), weighted_f=old.weighted_f))
    assert "evidence.bounds" in codes(here)


def test_a_matrix_is_improved_with_care(here: Packed, bench: Bench) -> None:
    """Then all numbers agree; only the networks contradict them."""
    slightly_better(here)
    assert not codes(here)
    result = bench(
        *("submit", "verify", here.bundle, "--manifest", here.manifest, "--spot", 12, "--seed", 0),
        *("--networks", here.networks),
    )
    assert result.code == 2
    assert "pixels predicted by its network differ from its evidence" in result.out
    assert "over the drawn images the IoU of" in result.out
    verdict = bundle.read_verdict(here.bundle)
    assert verdict is not None
    assert verdict.level == "claimed"
    again = bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert again.code == 2, "a less thorough check does not clear it"


def test_a_matrix_is_improved_and_there_are_no_networks(here: Packed, bench: Bench) -> None:
    slightly_better(here)
    here.repack()
    result = bench(
        *("submit", "verify", here.bundle, "--manifest", here.manifest, "--reproduce", "--source", here.folder),
        *("--seed", next(seed for seed in range(50) if drawn(here, seed) == 0)),
    )
    assert result.code == 2
    assert "on the same processor with the same packages they must be equal" in result.out


def drawn(here: Packed, seed: int) -> int:
    """Which replicate a reproduction with this seed draws."""
    runs = sorted((here.run(number) for number in (0, 1)), key=lambda path: path.name.split("-")[1])
    return int(runs[int(np.random.default_rng(seed).integers(2))].name[1])


def test_the_networks_are_swapped(here: Packed, bench: Bench, tmp_path: Path) -> None:
    kept = sorted(here.networks.iterdir())
    (tmp_path / "others").mkdir()
    for path, other in zip(kept, reversed(kept), strict=True):
        (tmp_path / "others" / path.name).write_bytes(other.read_bytes())
    result = bench(
        *("submit", "verify", here.bundle, "--manifest", here.manifest, "--spot", 8, "--seed", 0),
        *("--networks", tmp_path / "others"),
    )
    assert result.code == 2
    assert "is not the network that run" in result.out


def test_images_are_dropped(here: Packed) -> None:
    for number in (0, 1):
        old = evidence_of(here, number)
        replace_evidence(here, changed(old, **{name: getattr(old, name)[1:] for name in vars(old)}), number)
    assert "images.missing" in codes(here)


def test_images_of_another_split_are_scored(here: Packed) -> None:
    old = evidence_of(here)
    ids = old.image_ids.astype("U20")
    ids[0] = "train-1"
    replace_evidence(here, changed(old, image_ids=ids))
    assert codes(here) >= {"images.missing", "images.unknown"}
    assert "train-1" in faults(here)


def test_the_truth_is_edited(here: Packed) -> None:
    old = evidence_of(here)
    truth = old.confusion.copy()
    row = int(truth[0].sum(1).argmax())
    column = int(truth[0, row].argmax())
    truth[0, row, column] -= 1  # one hard pixel fewer
    replace_evidence(here, changed(old, confusion=truth))
    assert "images.pixels" in codes(here)


def test_groups_are_split_so_that_intervals_shrink(here: Packed) -> None:
    old = evidence_of(here)
    replace_evidence(here, changed(old, groups=np.array([f"g{i}" for i in range(len(old.groups))])))
    assert "images.groups" in codes(here)


def test_a_replicate_is_swapped_for_a_copy_of_a_better_one(here: Packed) -> None:
    better = max((0, 1), key=lambda number: np.count_nonzero(evidence_of(here, number).confusion.sum((0, 1))))
    replace_evidence(here, evidence_of(here, better), 1 - better)
    assert "copy.errors" in codes(here)
    result = faults(here)
    assert result.count(str(here.bundle)) == 2, "both places are named"


def test_a_replicate_is_swapped_for_a_later_one(here: Packed) -> None:
    """The best of many runs are labelled 0 and 1: their fingerprints reveal their true numbers."""

    def change(fields: dict[str, Any]) -> None:
        identity = fields["settings"]["identity"]
        identity["replicate"] = 7
        fields["run"], fields["cell"] = fingerprints(identity)

    here.edit(change, 1)
    assert "identity.field" in codes(here)
    assert "its final: replicate is 7" in faults(here)


def test_a_replicate_is_left_out(here: Packed) -> None:
    for path in sorted(here.run(1).iterdir(), reverse=True):
        path.unlink()
    here.run(1).rmdir()
    assert "cell.replicates" in codes(here)


def test_a_failed_replicate_is_reported(here: Packed) -> None:
    record = RunRecord.model_validate_json((here.run(1) / "record.json").read_bytes())
    null = dict.fromkeys(("scores", "tuning", "provenance", "evidence_sha256", "network_sha256", "weights_sha256"))
    failed = record.model_dump() | null | {"status": "diverged", "reason": "the loss was not finite"}
    for path in here.run(1).iterdir():
        path.unlink()
    (here.run(1) / "record.json").write_text(RunRecord(**failed).model_dump_json())
    here.repack()
    judged = verify.judge(here.bundle, [here.manifest])
    assert judged.faults == []
    assert "1 runs ended as diverged" in judged.notes


@pytest.mark.parametrize("field", ["finetune_steps", "trials", "batch", "seed"])
def test_another_budget_under_the_same_name(field: str, here: Packed) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["settings"]["protocol"][field] += 1

    here.edit(change)
    assert "settings.protocol" in codes(here)
    assert f" {field}:" in faults(here)


def test_a_private_protocol(here: Packed) -> None:
    here.edit(lambda fields: fields.update(protocol="mine-v1"))
    assert "record.unknown_name" in codes(here)


def test_more_trials_than_the_others_had(here: Packed) -> None:
    path = here.run() / "trials.jsonl"
    trial = json.loads(path.read_text().splitlines()[1]) | {"number": 2, "val_miou": 0.9}
    path.write_text(path.read_text() + json.dumps(trial) + "\n")
    assert "budget.trials" in codes(here)


def test_edited_trials(here: Packed) -> None:
    path = here.run() / "trials.jsonl"
    trials = [json.loads(line) for line in path.read_text().splitlines()]
    trials[1]["schedule"]["lr"] = 5e-3
    path.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    assert "budget.proposals" in codes(here)


def test_a_schedule_that_was_not_the_best(here: Packed) -> None:
    here.edit(lambda fields: fields["tuning"].update(tuned_val_miou=0.99))
    assert "budget.choice" in codes(here)


def test_fewer_steps_in_the_history(here: Packed) -> None:
    path = here.run() / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert "budget.steps" in codes(here)


def test_a_manifest_is_swapped(here: Packed, tmp_path: Path) -> None:
    mine = read_manifest(here.manifest).model_copy(update={"target_hash": "0" * 64})
    write_manifest(mine, here.bundle / "scenes.json")
    assert "bundle.files" in codes(here)
    (here.bundle / "scenes.json").unlink()
    write_manifest(mine, tmp_path / "mine.json")
    here.repack()
    result = {fault.code for fault in verify.judge(here.bundle, [tmp_path / "mine.json"]).faults}
    assert "images.target" in result
    result = {fault.code for fault in verify.judge(here.bundle).faults}
    assert "images.no_manifest" in result, "without one it does not pass silently"


def test_the_evidence_of_another_run(here: Packed, packed: Packed) -> None:
    other = next(record for record in packed.records() if record.source == "none")
    folder = next(packed.store.glob(f"*/*/none/*/r0-{other.run[:12]}"))
    replace_evidence(here, Evidence.from_bytes((folder / "evidence.npz").read_bytes()))
    assert not codes(here), "by itself it is consistent"
    assert "copy.errors" in codes(here, others=packed.store)
    result = faults(here, others=packed.store)
    assert "none x tiny r0" in result
    assert f"in {packed.store}" in result
    (here.bundle.parent.parent / "runs").symlink_to(packed.store)
    assert "copy.errors" in codes(here), "the store beside it is always searched"


def test_a_nan(here: Packed) -> None:
    path = here.run() / "record.json"
    text = path.read_text()
    path.write_text(text.replace('"weighted_f": 0', '"weighted_f": NaN, "x": 0', 1))
    assert "record.unreadable" in codes(here)
    path.write_text(text)
    old = evidence_of(here)
    values = old.weighted_f.copy()
    values[~np.isnan(values)] = np.nan
    (here.run() / "evidence.npz").write_bytes(changed(old, weighted_f=values).to_bytes())
    here.edit(lambda fields: fields.update(evidence_sha256=sha256((here.run() / "evidence.npz").read_bytes())))
    assert "evidence.absent_class" in codes(here)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "a\\..\\b", "C:outside"])
def test_a_path_that_leaves_the_folder(name: str, here: Packed, tmp_path: Path) -> None:
    listing = here.bundle / "bundle.json"
    result = json.loads(listing.read_text())
    result["files"][name] = "0" * 64
    listing.write_text(json.dumps(result))
    assert "bundle.files" in codes(here, repack=False)
    assert not list(tmp_path.parent.glob("outside*"))


def test_a_link_out_of_the_folder(here: Packed, tmp_path: Path) -> None:
    (here.bundle / "card.yaml").unlink()
    (here.bundle / "card.yaml").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match=r"card\.yaml is a link"):
        verify.judge(here.bundle)


def test_evidence_that_unpacks_to_too_much(here: Packed) -> None:
    made_of_zeros = io.BytesIO()
    with zipfile.ZipFile(made_of_zeros, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("image_ids", "groups", "confusion", "weighted_f"):
            with made.open(f"{name}.npy", "w", force_zip64=True) as member:
                for _ in range(100):
                    member.write(bytes(2**20))
    (here.run() / "evidence.npz").write_bytes(made_of_zeros.getvalue())
    here.edit(lambda fields: fields.update(evidence_sha256=sha256(made_of_zeros.getvalue())))
    assert "evidence.unreadable" in codes(here)


def test_a_pickle_in_the_evidence_is_not_run(here: Packed, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
            return (Path.touch, (tmp_path / "ran",))

    arrays = dict.fromkeys(("image_ids", "groups", "confusion", "weighted_f"), np.array([Evil()], dtype=object))
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)  # type: ignore[arg-type]
    (here.run() / "evidence.npz").write_bytes(data.getvalue())
    here.edit(lambda fields: fields.update(evidence_sha256=sha256(data.getvalue())))
    assert "evidence.unreadable" in codes(here)
    assert not (tmp_path / "ran").exists()


def test_no_bundle(here: Packed, bench: Bench, tmp_path: Path) -> None:
    result = bench("submit", "verify", tmp_path / "nothing")
    assert (result.code, "no bundle at" in result.err) == (1, True)
    (here.bundle / "bundle.json").write_text("{")
    result = bench("submit", "verify", here.bundle)
    assert (result.code, "bundle.json" in result.err) == (1, True)


def test_weights_that_did_not_load(here: Packed) -> None:
    here.edit(lambda fields: fields.update(problems=["no tensor for x"], passed=False), name="certificate.json")
    assert "certificate.refused" in codes(here)
    (here.run() / "certificate.json").unlink()
    assert "certificate.missing" in codes(here)


def test_the_certificate_of_other_weights(here: Packed) -> None:
    here.edit(lambda fields: fields.update(sha256="0" * 64), name="certificate.json")
    assert "certificate.other_weights" in codes(here)


def test_another_checkpoint_than_the_card_names(here: Packed) -> None:
    card = yaml.safe_load((here.bundle / "card.yaml").read_text())
    card["checkpoints"][0]["sha256"] = "0" * 64
    (here.bundle / "card.yaml").write_text(yaml.safe_dump(card))
    assert "identity.field" in codes(here)


def test_a_card_that_takes_a_baselines_name(here: Packed) -> None:
    card = yaml.safe_load((here.bundle / "card.yaml").read_text()) | {"name": "imagenet"}
    (here.bundle / "card.yaml").write_text(yaml.safe_dump(card))
    assert "card.unusable" in codes(here)


def test_a_baselines_run_in_a_bundle(here: Packed) -> None:
    here.edit(lambda fields: fields.update(source="none"))
    assert "record.source" in codes(here)


def test_a_ranked_flag_or_a_leak_is_edited(here: Packed) -> None:
    here.edit(lambda fields: fields.update(ranked=not fields["ranked"]))
    assert "record.field" in codes(here)
    card = yaml.safe_load((here.bundle / "card.yaml").read_text()) | {"training_data": ["scenes"]}
    (here.bundle / "card.yaml").write_text(yaml.safe_dump(card))
    assert "record.leak" in codes(here)


def test_an_identity_nested_without_end(here: Packed) -> None:
    path = here.run() / "record.json"
    text = path.read_text()
    deep = '{"needs": [' * 3000 + "{}" + "]}" * 3000
    path.write_text(text.replace('"identity":', f'"identity": {deep}, "was":', 1))
    result = faults(here)
    assert result, "rejected without a crash"


def test_an_invented_weighted_f(here: Packed, bench: Bench) -> None:
    """The matrices bound it; within the bounds only the networks contradict it."""
    old = evidence_of(here)
    replace_evidence(here, changed(old, weighted_f=np.where(np.isnan(old.weighted_f), np.nan, 0.95)))
    assert "evidence.bounds" in codes(here)
    replace_evidence(here, changed(old, weighted_f=possible(old.confusion, here)))
    assert not codes(here)
    result = bench(
        *("submit", "verify", here.bundle, "--manifest", here.manifest, "--spot", 12, "--seed", 0),
        *("--networks", here.networks),
    )
    assert result.code == 2
    assert "the weighted F-measure of its network differs from its evidence" in result.out


def test_counts_that_wrap_around(here: Packed) -> None:
    old = evidence_of(here)
    data = io.BytesIO()
    arrays = {name: getattr(old, name) for name in ("image_ids", "groups", "weighted_f")}
    np.savez_compressed(data, **arrays, confusion=old.confusion.astype(np.uint64))
    (here.run() / "evidence.npz").write_bytes(data.getvalue())
    here.edit(lambda fields: fields.update(evidence_sha256=sha256(data.getvalue())))
    assert "evidence.unreadable" in codes(here)


def test_copied_evidence_in_another_order(here: Packed) -> None:
    better = max((0, 1), key=lambda number: np.count_nonzero(evidence_of(here, number).confusion.sum((0, 1))))
    old = evidence_of(here, better)
    turned = Evidence(*(getattr(old, name)[::-1] for name in ("image_ids", "groups", "confusion", "weighted_f")))
    replace_evidence(here, turned, 1 - better)
    assert "copy.errors" in codes(here)


def test_one_network_for_two_replicates(here: Packed) -> None:
    shas = [json.loads((here.run(number) / "record.json").read_text())["network_sha256"] for number in (0, 1)]
    here.edit(lambda fields: fields.update(network_sha256=shas[0]), 1)
    assert "copy.network" in codes(here)


def test_equal_networks_from_the_same_weights_are_legitimate(here: Packed, tmp_path: Path) -> None:
    """A submitted baseline checkpoint: equal in the same replicate only."""
    store, record = Store(tmp_path / "store"), RunRecord.model_validate_json((here.run() / "record.json").read_bytes())
    other = record.model_copy(update={"source": "theirs", "run": "f" * 64})
    shutil.copytree(here.run(), store.folder_of(other))
    (store.folder_of(other) / "record.json").write_text(other.model_dump_json())
    assert not codes(here, others=store.root)
    judged = verify.judge(here.bundle, [here.manifest], others=store.root)
    assert any(
        "same network as theirs x tiny r0" in n and "as expected from the same weights" in n for n in judged.notes
    )
    others = {"identity": {"needs": [{"kind": "pretrain", "origin": "hub"}]}}
    for changes in ({"replicate": 1}, {"weights_sha256": "0" * 64}, {"source": "mine"}, {"settings": others}):
        copied = other.model_copy(update=changes)
        shutil.rmtree(store.root)
        shutil.copytree(here.run(), store.folder_of(copied))
        (store.folder_of(copied) / "record.json").write_text(copied.model_dump_json())
        assert "copy.network" in codes(here, others=store.root), changes
        result = faults(here, others=store.root)
        assert "(ffffffffffff) in " in result, changes


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("weights", None, "record.field"),
        ("weights", "hub nvidia/mit-b0", "record.field"),
        ("finished", "zzzz", "record.time"),
        ("finished", "9998-01-01", "record.time"),
        ("normalisation", {"mean": [0.1] * 3, "std": [0.1] * 3}, "certificate.normalisation"),
        ("backbone", "tinny", "record.unknown_name"),
        ("protocol", "/tmp/own.yaml~smoke", "record.unknown_name"),
        ("target", "../x", "record.unknown_name"),
        ("replicates", 10**9, "record.field"),
    ],
)
def test_a_field_that_no_score_depends_on(field: str, value: object, code: str, here: Packed) -> None:
    here.edit(lambda fields: fields.update({field: value}))
    assert code in codes(here)
    assert field in faults(here)


def test_an_invented_pretraining(here: Packed) -> None:
    made = {
        **{"corpus": "0" * 64, "pretrain_images": 9, "pretrain_steps": 2, "pretrain_loss": 0.1, "heldout_images": 1},
        **{"heldout_loss_before": 1.0, "heldout_loss": 0.1, "heldout_miou": 0.99, "heldout_miou_constant": 0.1},
    }
    here.edit(lambda fields: fields.update(pretraining=made))
    assert "record.pretraining" in codes(here)


def test_an_identity_edited_below_the_top(here: Packed) -> None:
    def change(fields: dict[str, Any]) -> None:
        tree = fields["settings"]["identity"]
        tuned = next(unit for unit in tree["needs"] if unit["kind"] == "tune")
        tuned["train_frac"] = 0.5
        fields["run"], fields["cell"] = fingerprints(tree)

    here.edit(change)
    assert "identity.field" in codes(here)


def test_a_card_with_an_absolute_path(here: Packed) -> None:
    card = yaml.safe_load((here.bundle / "card.yaml").read_text())
    card["checkpoints"][0]["path"] = "/etc/passwd"
    (here.bundle / "card.yaml").write_text(yaml.safe_dump(card))
    assert "card.path" in codes(here)


@pytest.mark.parametrize(
    "text",
    [
        "paper: 2001-99-99",
        "paper: !!int x",
        "paper: !!timestamp x",
        "x: " + "[" * 3000,
        "a: " + "9" * 5000,
        "\ufffd\x00",
    ],
)
def test_a_malformed_card(text: str, here: Packed, bench: Bench) -> None:
    (here.bundle / "card.yaml").write_text(text)
    assert "card.unusable" in codes(here)
    assert bench("submit", "check", here.bundle).code == 1, "nor does `submit check` crash"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trials.jsonl", "[" * 100_000),
        ("trials.jsonl", '{"number": "x", "schedule": [], "val_miou": "high"}\n' * 2),
        ("history.csv", "step,loss,lr\n1," + "9" * 200_000),
        ("certificate.json", "[" * 100_000),
        ("evidence.npz", "PK\x03\x04"),
    ],
)
def test_a_malformed_file(name: str, text: str, here: Packed) -> None:
    (here.run() / name).write_text(text)
    if name == "evidence.npz":
        here.edit(lambda fields: fields.update(evidence_sha256=sha256((here.run() / name).read_bytes())))
    assert here.run().name in faults(here), "named, without a crash"


def forged(packed: Packed, there: Path, name: str, source: str, level: str = "claimed", **changes: Any) -> Path:
    """A bundle forged from a run of the store; with a level, it has a forged verdict."""
    record = next(record for record in packed.records() if record.source == source)
    new = record.model_copy(update={"run": "f" * 64, "cell": "e" * 64} | changes)
    folder = there / "submissions" / name
    run = folder.joinpath(
        "runs", *(slug(getattr(new, n)) for n in ("target", "protocol", "source", "backbone")), "r0-" + "f" * 12
    )
    shutil.copytree(Store(packed.store).folder_of(record), run)
    (run / "record.json").write_text(new.model_dump_json())
    shutil.copy(packed.bundle / "card.yaml", folder)
    shutil.copy(packed.bundle / "bundle.json", folder)
    here = Packed(packed.folder, packed.store, folder, packed.networks, packed.manifest, packed.matrix)
    listing = json.loads((folder / "bundle.json").read_text()) | {"name": name}
    (folder / "bundle.json").write_text(json.dumps(listing))
    here.repack()
    if level != "claimed":
        result = {
            **{
                "name": name,
                "level": level,
                "checked": "2026-01-01",
                "version": "0",
                "tried": level,
                "faults": [],
                "done": [],
            },
            "bundle_sha256": sha256((folder / "bundle.json").read_bytes()),
        }
        bundle.verdict_file(folder).write_text(json.dumps(result))
    return there / "bench-store"


BOARD = ["source", "backbone", "n", "miou", "rank", "status"]


@pytest.mark.parametrize("level", ["claimed", "reproduced"])
@pytest.mark.parametrize(
    "changes",
    [
        {"cell": None},
        {"finished": "9999-01-01"},
        {"target_hash": "0" * 64, "finished": "9999-01-01"},
        {"label_note": "EVIL", "ranked": False},
    ],
    ids=["joins the cell", "newer", "another board", "other label note"],
)
def test_a_forged_bundle_changes_no_other_rows(
    level: str, changes: dict[str, Any], packed: Packed, tmp_path: Path
) -> None:
    """Not even with a forged verdict and a baseline's name."""
    changes = {k: v for k, v in changes.items() if v is not None}
    if not changes:
        changes = {"cell": next(r.cell for r in packed.records() if r.source == "none")}
    shutil.copytree(packed.store, tmp_path / "bench-store")
    before = load_table(tmp_path / "bench-store")
    store = forged(packed, tmp_path, "none", "none", level, **changes)
    after = load_table(store)
    ours = after[after["submission"].isna()]
    assert len(ours) == len(before)
    assert board(ours)[BOARD].equals(board(before)[BOARD])
    result, then = (samples(one_board(table)) for table in (before, after))
    assert (then.scores, then.judged) == (result.scores, result.judged)


def test_a_forged_finding_marks_no_other_source(packed: Packed, tmp_path: Path) -> None:
    shutil.copytree(packed.store, tmp_path / "bench-store")
    here = packed.copy(tmp_path)
    target = packed.records()[0].target_hash
    ids = [image.id for image in read_manifest(packed.manifest).test]
    finding = LeakFinding(
        source="none",
        target="scenes",
        target_hash=target,
        images="0" * 64,
        image_count=1,
        test_images=len(ids),
        touched={i: Near(image="x", similarity=1, how="x") for i in ids},
        threshold=0.5,
        expected_false_alarms=0,
        unreadable=0,
        notes=[],
        checked="2026-01-01",
    )
    known_leaks.write(Store(here.bundle / "runs"), finding)
    assert "finding.misplaced" in codes(here)
    mine = finding.model_copy(update={"source": "mine", "test_images": 10**9, "touched": {}})
    known_leaks.path_of(Store(here.bundle / "runs"), "scenes", "none").unlink()
    known_leaks.write(Store(here.bundle / "runs"), mine)
    assert "finding.unlike" in codes(here)
    touched = known_leaks.read([(Store(here.bundle / "runs"), "other")])
    assert not touched.verified


@pytest.mark.parametrize("field", ["cell", "run"])
def test_an_invented_fingerprint(field: str, here: Packed) -> None:
    for number in (0, 1):
        digest = "e" * 64 if field == "cell" else str(number) * 64

        def change(fields: dict[str, Any], digest: str = digest) -> None:
            fields[field] = digest

        here.edit(change, number)
    assert "identity.fingerprint" in codes(here)


def test_a_copy_of_a_network_with_one_weight_moved(here: Packed, bench: Bench, tmp_path: Path) -> None:
    """The record has the changed checksum; the weights are compared."""
    shas = [json.loads((here.run(number) / "record.json").read_text())["run"] for number in (0, 1)]
    copied = tmp_path / "networks"
    shutil.copytree(here.networks, copied)
    tensors = safetensors.torch.load_file(copied / f"{shas[0]}.safetensors")
    first = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
    tensors[first].view(-1)[0] += 1e-6
    safetensors.torch.save_file(tensors, copied / f"{shas[1]}.safetensors")
    here.edit(lambda fields: fields.update(network_sha256=state_sha256(tensors)), 1)
    here.repack()
    result = bench(
        *("submit", "verify", here.bundle, "--manifest", here.manifest, "--spot", 1, "--seed", 0),
        *("--networks", copied),
    )
    assert result.code == 2
    assert re.search(r"weights of mine x tiny r[01] .* away from those of mine x tiny r[01]", result.out)
    honest = bench(
        *("submit", "verify", packed_again(here, tmp_path), "--manifest", here.manifest, "--spot", 1, "--seed", 0),
        *("--networks", here.networks),
    )
    assert "2 networks compared with each other" in honest.out
    assert "away from those of" not in honest.out


def packed_again(here: Packed, to: Path) -> Path:
    """The bundle as it was, in another folder."""
    here.edit(lambda fields: fields.update(network_sha256=state_sha256(network_of(here, fields["run"]))), 1)
    there = to / "honest" / "submissions" / "mine"
    shutil.copytree(here.bundle, there)
    Packed(here.folder, here.store, there, here.networks, here.manifest, here.matrix).repack()
    return there


def network_of(here: Packed, run: str) -> dict[str, Any]:
    return safetensors.torch.load_file(here.networks / f"{run}.safetensors")


# -- impossible declarations ---------------------------------------------------------------------------------------------


def sizes(fields: dict[str, Any], tensors: int) -> None:
    """Make the certificate one of this many tensors, with stages to match."""
    fields.update(tensors_expected=tensors, tensors_matched=tensors)
    fields["stages"] = {"all": {"expected": tensors, "tensors": tensors, "values": 1}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda fields: sizes(fields, 1), "certificate.stages"),
        (lambda fields: fields.update(tensors_expected=1, tensors_matched=1), "certificate.stages"),
        (lambda fields: next(iter(fields["stages"].values())).update(values=1), "certificate.stages"),
        (lambda fields: fields.update(share_equal_to_initial_frac=1.0), "certificate.refused"),
        (lambda fields: fields.update(feature_distance=[0.0]), "certificate.refused"),
        (lambda fields: fields.update(stages=[]), "certificate.missing"),
        (lambda fields: fields.update(feature_distance=[]), "certificate.missing"),
    ],
)
def test_an_impossible_certificate(change: Callable[[dict[str, Any]], None], code: str, here: Packed) -> None:
    here.edit(change, name="certificate.json")
    assert code in codes(here)


def test_the_weights_of_a_fixed_checkpoint_differ_between_replicates(here: Packed) -> None:
    """Certificate and record are edited together; the other replicate has the same file, so it must have the same weights."""
    here.edit(lambda fields: fields.update(sha256="0" * 64), name="certificate.json")
    here.edit(lambda fields: fields.update(weights_sha256="0" * 64))
    assert "copy.weights" in codes(here)


def edit_both_weights(here: Packed) -> None:
    for number in (0, 1):
        here.edit(lambda fields: fields.update(sha256="0" * 64), number, "certificate.json")
        here.edit(lambda fields: fields.update(weights_sha256="0" * 64), number)


def test_the_weights_of_every_replicate_are_edited(here: Packed, bench: Bench) -> None:
    """Only the file that the card names contradicts it; a note says that it was not checked."""
    edit_both_weights(here)
    here.repack()
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert result.code == 0
    assert "weights_sha256 is not checked" in result.out
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--source", here.folder)
    assert result.code == 2
    assert "the file that its card names gives other weights than were recorded" in result.out


def test_the_file_that_the_card_names_is_compared_with_the_certificate(here: Packed, bench: Bench) -> None:
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--source", here.folder)
    assert result.code == 0, result.out
    assert "weights of 1 checkpoint loaded again from file" in result.out
    assert "is not checked" not in result.out


def test_an_extra_key_in_an_identity(here: Packed) -> None:
    """It would give a copied run a new fingerprint."""

    def change(fields: dict[str, Any]) -> None:
        tree = fields["settings"]["identity"]
        for unit in (tree, next(unit for unit in tree["needs"] if unit["kind"] == "pretrain")):
            unit["salt"] = 1
        fields["run"], fields["cell"] = fingerprints(tree)

    here.edit(change)
    assert codes(here) == {"identity.extra"}
    assert faults(here).count("'salt'") == 2, "of the final and of its pretraining"


def test_runs_relabelled_as_a_tenth_of_the_labels(here: Packed) -> None:
    """Beside the full runs they are copies; alone, a note says that only a reproduction can tell."""
    for number in (0, 1):

        def change(fields: dict[str, Any]) -> None:
            fields["train_frac"] = 0.1
            tree = fields["settings"]["identity"]
            tree["train_frac"] = 0.1
            next(unit for unit in tree["needs"] if unit["kind"] == "tune")["train_frac"] = 0.1
            fields["run"], fields["cell"] = fingerprints(tree)

        here.edit(change, number)
    here.repack()
    judged = verify.judge(here.bundle, [here.manifest])
    assert any("only --reproduce can confirm" in note for note in judged.notes)
    assert "copy.network" in codes(here, others=here.store)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda fields: fields.update(leak="x" * 2**20), "leak"),
        (lambda fields: fields["settings"].update(more="x" * 2**22), "settings"),
        (lambda fields: fields["provenance"].update(train_s=1.7e308), "train_s"),
        (lambda fields: fields["provenance"].update(device="x" * 5000), "device"),
        (lambda fields: fields["provenance"]["packages"].update({"x" * 5000: "1"}), "packages"),
        (lambda fields: fields.update(classes=["x"] * 300), "classes"),
    ],
)
def test_an_oversized_record(change: Callable[[dict[str, Any]], None], why: str, here: Packed) -> None:
    here.edit(change)
    result = faults(here)
    assert f"record.json: {why}" in result or f".{why}" in result
    assert len(result) < 2000


@pytest.mark.parametrize(
    ("claimed", "code"),
    [({"gpu": 0}, "record.device"), ({"precision": "bf16"}, "record.precision")],
)
def test_a_device_that_the_protocol_does_not_use(claimed: dict[str, object], code: str, here: Packed) -> None:
    here.edit(lambda fields: fields["provenance"].update(claimed))
    here.repack()
    assert codes(here) == {code}


# -- a verdict that comes with the bundle --------------------------------------------------------------------------------


def leave_verdict(here: Packed, **changes: Any) -> None:
    here.repack()
    fields = {
        **{"name": "mine", "level": "reproduced", "checked": "2026-01-01", "version": "0", "tried": "reproduced"},
        **{"faults": [], "done": ["everything"], "bundle_sha256": sha256((here.bundle / "bundle.json").read_bytes())},
    }
    bundle.verdict_file(here.bundle).write_text(json.dumps(fields | changes))


def test_a_verdict_in_the_submission_is_named_and_not_returned(here: Packed, bench: Bench) -> None:
    leave_verdict(here, by="the forger")
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert result.code == 0
    assert result.out.rstrip().endswith("mine: recomputed")
    assert (
        "mine.verdict.json, by the forger on 2026-01-01, says 'reproduced', which this check did not repeat"
        in result.out
    )
    assert "everything" not in result.out


def test_a_verdict_in_the_submission_does_not_hide_a_fault(here: Packed, bench: Bench) -> None:
    here.edit(lambda fields: fields["scores"].update(miou=0.9))
    leave_verdict(here)
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert result.code == 2
    assert "miou is 0.9, but its evidence gives" in result.out
    verdict = bundle.read_verdict(here.bundle)
    assert verdict is not None
    assert verdict.level == "claimed", "and it is replaced"


def test_the_reviewer_is_recorded_in_the_verdict(here: Packed, bench: Bench) -> None:
    bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--by", "a reviewer")
    verdict = bundle.read_verdict(here.bundle)
    assert verdict is not None
    assert verdict.by == "a reviewer"
    (one,), left_out = bundle.submissions(here.bundle.parent.parent / "bench-store")
    assert (one.badge, left_out) == ("recomputed by a reviewer", [])
