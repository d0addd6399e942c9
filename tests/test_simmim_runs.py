"""Pretraining without masks from a matrix to the board and into a bundle, on rendered frames and the network for tests."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Bench, run_inline, write_matrix
from own_backbone import Code
from safetensors.torch import load_file
from submitted import CARD, Packed, Silent, fingerprints

from bench.cli import progress
from bench.plan.matrix import load_matrix
from bench.plan.plan import Sweep
from bench.run.run import How, run_matrix
from bench.submission import pack, verify
from bench.submission.identity import Definitions, unit_of
from bench.targets import open_target, shipped_targets
from bench.targets.manifest import make_manifest, write_manifest
from pretrain_sources.catalog import catalog, find_source
from results import load_table
from results.record_files import read_records
from results.store import Store

SMALL = "pool/simmim/patch-16"  # 2 x 3 squares in the crops of the tests' protocol
CHAIN = f"{SMALL}+satir/felzenszwalb"


@pytest.fixture(scope="module")
def ran(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a matrix that was run, with its store. Read only."""
    here = tmp_path_factory.mktemp("simmim")
    sources = ("none", SMALL, f"{SMALL}/n-20", f"{SMALL}~permuted", CHAIN)
    run_inline(write_matrix(here, sources, max_frames=30, trials=1, finetune_steps=1), here / "store", scenes)
    return here


@pytest.fixture
def copied(ran: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, where `bench` has its store."""
    shutil.copytree(ran, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_record_has_the_loss_before_and_after_and_no_miou_of_labels(ran: Path) -> None:
    table: Any = load_table(ran / "store").set_index(["source", "replicate"])
    assert set(table["status"]) == {"ok"}
    row = table.loc[(SMALL, 0)]
    assert (row["pretrain_images"], row["heldout_images"], row["pretrain_steps"]) == (27, 3, 2)
    assert row[["heldout_loss_before", "heldout_loss", "heldout_loss_constant"]].notna().all()
    assert row[["heldout_miou", "heldout_miou_constant"]].isna().all()
    assert row["weights"] == f"pretrained here, {SMALL}"
    assert table.loc[(f"{SMALL}/n-20", 0), "pretrain_images"] == 18
    labelled = table.loc[(CHAIN, 0)]
    assert labelled["weights"] == f"pretrained here, {CHAIN}, from pretrained here, {SMALL}"
    assert labelled[["heldout_miou", "heldout_loss_constant"]].isna().tolist() == [False, True]
    permuted = table.loc[(f"{SMALL}~permuted", 0)]
    assert permuted["heldout_loss"] == row["heldout_loss"], "the pretraining behind the weights"
    assert table["weights_sha256"].dropna().nunique() == 8, "every source and replicate has its own weights"


def test_only_the_encoder_goes_on_and_every_tensor_of_it(ran: Path) -> None:
    record = next(r for r in read_records(Store(ran / "store"))[0] if r.source == SMALL)
    certificate = json.loads((Store(ran / "store").folder_of(record) / "certificate.json").read_text())
    assert certificate["passed"]
    assert certificate["tensors_matched"] == certificate["tensors_expected"] == 18
    assert set(certificate["stages"]) == {"stages.0", "stages.1", "stages.2"}, "no head"
    assert certificate["origin"].startswith(f"{SMALL}, 2 steps on images ")


def test_the_board_shows_the_loss_beside_pseudo_labels(copied: Path, bench: Bench) -> None:
    out = bench("table").out
    lines = {line.split()[1]: line for line in out.splitlines() if " tiny " in line}
    row = next(r for r in load_table(copied / "store").to_dict("records") if r["source"] == SMALL)
    assert "held-out loss" in out
    assert "pseudo-labels" in out
    assert " -> " in lines[SMALL]
    assert " -> " not in lines[CHAIN]
    assert " -> " not in lines["none"]
    assert "nothing was learned unless the second is lower than the third" in " ".join(out.split())
    shown = json.loads(bench("table", "--format", "json").out)
    cell = next(each for each in shown if each["source"] == SMALL)
    assert cell["heldout_miou"] is None
    assert abs(cell["heldout_loss"] - row["heldout_loss"]) < 1


def test_a_board_without_labels_does_not_speak_of_them(ran: Path, bench: Bench, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for source in ("none", SMALL.replace("/", "--")):
        for path in (ran / "store").glob(f"*/*/{source}"):
            shutil.copytree(path, store / path.relative_to(ran / "store"))
    out = bench("table").out
    assert "held-out loss" in out
    assert "pseudo-labels" not in out


def test_it_plans_no_corpus_of_its_own_and_is_done_once(copied: Path, bench: Bench) -> None:
    plan = bench("plan", "--matrix", copied / "test-matrix.yaml").out
    assert "corpus        1 units" in plan, "that of the chain"
    assert "time: none, nothing is left to do" in plan
    assert "nothing to do" in bench("run", "--matrix", copied / "test-matrix.yaml").out
    status = bench("status", f"{SMALL} x tiny").out
    assert f"done        pretrain r0 {SMALL} x tiny" in status


def test_workers_give_the_same_weights(ran: Path, bench: Bench, tmp_path: Path) -> None:
    path = ran / "test-matrix.yaml"
    other = tmp_path / "other"
    assert bench("run", "--matrix", path, "--source", SMALL, "--jobs", 1, "--store", other).code == 0
    columns = ["run", "miou", "weights_sha256", "heldout_loss", "heldout_loss_constant", "pretrain_loss"]
    tables = [load_table(store).sort_values("run") for store in (ran / "store", other)]
    one, two = (table[table["source"] == SMALL][columns].to_dict("records") for table in tables)
    assert one == two
    assert len(one) == 2


def test_its_identity_has_the_images_and_what_is_masked(ran: Path) -> None:
    record = next(r for r in read_records(Store(ran / "store"))[0] if r.source == SMALL)
    tree = record.settings["identity"]
    [weights] = [unit for unit in tree["needs"] if unit["kind"] == "pretrain"]
    assert weights.keys() == {"kind", "version", "images", "simmim", "backbone", "protocol", "needs", "replicate"}
    assert weights["simmim"] == {"patch_px": 16, "mask_ratio": 0.6}
    assert fingerprints(tree) == (record.run, record.cell)
    assert record.settings["card"]["simmim"] == weights["simmim"]
    assert "simmim" not in catalog()["satir"].identity()
    protocol = load_matrix(str(ran / "test-matrix.yaml")).protocol
    spec = shipped_targets()["scenes"].spec
    backbone = load_matrix(str(ran / "test-matrix.yaml")).backbones["tiny"]
    meant = Definitions(protocol, find_source(SMALL, catalog()), catalog(), backbone, spec)
    assert unit_of(record, meant).fingerprint == record.run


# -- what cannot be done -----------------------------------------------------------------------------------------------


def test_without_a_pool_it_is_skipped_with_what_to_do(bench: Bench, soda: Path, tmp_path: Path) -> None:
    shutil.rmtree(soda / "soda" / "unlabelled")
    path = write_matrix(tmp_path, (SMALL, f"{SMALL}/n-9999"), replicates=1)
    words = ("run", "--matrix", path, "--executor", "inline", "--target", "soda", "--data", soda)
    ran = bench(*words, "--source", SMALL)
    assert ran.code == 0
    assert "soda has no unlabelled images: name a folder with --pool DIR" in ran.out
    assert "no images in" in bench(*words, "--pool", _empty(tmp_path)).err


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_a_subset_that_the_pool_cannot_give_is_skipped(bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, (f"{SMALL}/n-9999",), replicates=1)
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 0
    assert "9999 images requested, but the pool has 90" in ran.out


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("pool/simmim", "choose larger crops or a smaller patch, such as pool/simmim/patch-16"),
        ("pool/simmim/patch-1/ratio-0.9999", "choose larger crops or a smaller mask_ratio"),
        (
            "imagenet+pool/simmim",
            "'imagenet+pool/simmim' masks squares of 32 x 32 px, and nothing is left of the crops",
        ),
    ],
)
def test_crops_that_would_be_masked_as_a_whole_are_refused(
    source: str, advice: str, bench: Bench, tmp_path: Path
) -> None:
    result = bench("plan", "--matrix", write_matrix(tmp_path, (source,)))
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert advice in result.err


def test_a_pool_without_a_readable_image_fails_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for i in range(3):
        (tmp_path / "pool" / f"{i}.png").write_bytes(b"torn" * (i + 1))
    path = write_matrix(tmp_path, (SMALL, "none"), replicates=1, trials=1)
    ran = bench("run", "--matrix", path, "--executor", "inline", "--pool", tmp_path / "pool")
    assert ran.code == 2
    assert "none of 3 images of the pool can be used: 3 not a readable image" in ran.out
    statuses = {record.source: record.status for record in read_records(Store(tmp_path / "store"))[0]}
    assert statuses == {"none": "ok", SMALL: "failed"}


def test_a_diverging_pretraining_is_recorded_as_such(bench: Bench, tmp_path: Path) -> None:
    schedule = {"lr": 1e30, "encoder_lr_scale": 1.0, "weight_decay": 0.01, "warmup_frac": 0.0, "decay": "poly"}
    search: dict[str, Any] = {"lr": {"low": 1e-4, "high": 1e30, "log": True}, "decay": ["poly"]}
    search |= {
        "weight_decay": {"low": 0.0, "high": 1.0},
        "encoder_lr_scale": {"low": 0.1, "high": 1.0},
        "warmup_frac": {"low": 0.0, "high": 0.2},
    }
    wild: dict[str, Any] = {"default": schedule, "search": search, "replicates": 1, "trials": 1, "pretrain_steps": 20}
    ran = bench("run", "--matrix", write_matrix(tmp_path, (SMALL,), **wild), "--executor", "inline")
    assert ran.code == 2
    [record] = read_records(Store(tmp_path / "store"))[0]
    assert (record.status, record.pretraining) == ("diverged", None)


@pytest.mark.parametrize("transfer", ["frozen", "linear"])
def test_a_frozen_encoder_keeps_what_it_learned(transfer: str, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, (SMALL,), transfer=transfer, replicates=1, trials=1)
    assert bench("run", "--matrix", path, "--executor", "inline", "--keep-weights").code == 0
    store = tmp_path / "store"
    [record] = read_records(Store(store))[0]
    assert (record.status, record.transfer) == ("ok", transfer)
    [learned], [network] = (list(store.glob(f"units/*/*/{name}.safetensors")) for name in ("encoder", "network"))
    kept = load_file(network)
    assert all(torch.equal(kept[f"encoder.{name}"], tensor) for name, tensor in load_file(learned).items())


def test_a_backbone_of_ones_own_reconstructs_too(code: Code, bench: Bench, tmp_path: Path) -> None:
    code.write("own_net")
    path = write_matrix(tmp_path, (SMALL,), ("own_net:build",), replicates=1, trials=1, max_frames=10)
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 0, ran.out + ran.err
    [record] = read_records(Store(tmp_path / "store"))[0]
    assert record.pretraining is not None
    assert record.pretraining.heldout_loss_constant is not None


def test_leaks_are_searched_in_the_pool(bench: Bench) -> None:
    result = bench("leaks", "--source", "pool/simmim/n-20", "--target", "scenes")
    assert result.code == 0, result.err
    assert "among its 20 images" in result.out
    wrong = bench("corpus", "make", "--pool", "x", "--recipe", "pool/simmim", "--out", "y")
    assert "source 'pool/simmim' has no recipe" in wrong.err


# -- bundles -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submitted:
    """A packed submission without labels, and the data behind it."""

    made: Packed
    data: Path


@pytest.fixture(scope="module")
def submitted(scenes: Path, shipped_protocol: None, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A card of one's own, run under a protocol that counts as shipped, and packed. Read only."""
    here = tmp_path_factory.mktemp("submitted")
    card = {name: value for name, value in CARD.items() if name != "checkpoints"} | {"simmim": {"patch_px": 16}}
    (here / "mine").mkdir()
    (here / "mine" / "card.yaml").write_text(yaml.safe_dump(card))
    matrix = here / "test-matrix.yaml"
    fields = {"target": "scenes", "protocol": "test-v1", "sources": ["none"], "backbones": ["tiny"]}
    matrix.write_text(yaml.safe_dump(fields))
    write_manifest(make_manifest(open_target("scenes", scenes)), here / "scenes.json")
    loaded = load_matrix(str(matrix), sources=[str(here / "mine")])
    run_matrix(Sweep(loaded, Store(here / "store"), scenes, here / "weights", keep=True), How("inline"), Silent())
    bundle, _ = pack.pack(here / "mine", here / "out", Store(here / "store"))
    networks = here / "out" / "mine-networks"
    return Submitted(Packed(here / "mine", here / "store", bundle, networks, here / "scenes.json", matrix), scenes)


def test_a_bundle_is_verified(submitted: Submitted, tmp_path: Path) -> None:
    made = submitted.made.copy(tmp_path)
    assert made.codes() == set()
    assert yaml.safe_load((made.bundle / "card.yaml").read_text())["simmim"] == {"patch_px": 16, "mask_ratio": 0.6}


def test_a_run_is_spot_checked_and_reproduced(
    submitted: Submitted, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", -1.0)
    made = submitted.made.copy(tmp_path)
    shutil.copytree(submitted.made.networks, made.bundle.with_name(submitted.made.networks.name))
    words = ["submit", "verify", made.bundle, "--manifest", made.manifest, "--seed", 1]
    spot = bench(*words, "--spot", 5)
    assert spot.code == 0, spot.out + spot.err
    again = bench(*words, "--reproduce", "--source", made.folder)
    assert again.code == 0, again.out + again.err
    assert "the same scores, bit for bit" in again.out
    shown = [int(percent) for percent in re.findall(r"training again, (\d+)%", again.out)]
    assert shown == sorted(shown), "one bar over its pretraining and its finetuning"
    assert shown[0] < 50 < shown[-1] == 100


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"heldout_miou": 0.5, "heldout_miou_constant": 0.1, "heldout_loss_constant": None}, "record.pretraining"),
        ({"pretrain_steps": 3}, "budget.pretraining"),
        (None, "record.pretraining"),
    ],
)
def test_a_forged_pretraining_is_a_fault(
    change: dict[str, object] | None, code: str, submitted: Submitted, tmp_path: Path
) -> None:
    made = submitted.made.copy(tmp_path)

    def forge(record: dict[str, Any]) -> None:
        record["pretraining"] = change and record["pretraining"] | change

    made.edit(forge)
    assert made.codes() == {code}


def test_other_settings_or_images_are_a_fault(submitted: Submitted, tmp_path: Path) -> None:
    made = submitted.made.copy(tmp_path)

    def forge(record: dict[str, Any]) -> None:
        next(u for u in record["settings"]["identity"]["needs"] if u["kind"] == "pretrain")["simmim"]["mask_ratio"] = (
            0.5
        )

    made.edit(forge)
    assert "identity.field" in made.codes()
    assert verify.judge(made.bundle, [made.manifest]).faults
