"""Runs with a model of the Hugging Face hub as a teacher, from the card to the board and a bundle."""

import shutil
from pathlib import Path

import hub_sams
import pytest
import yaml
from conftest import Bench, write_matrix

from bench.train import stages
from pretrain_sources.corpus import read_manifest
from results.record_files import read_records
from results.store import Store

ALL = {"points_per_side": 2, "pred_iou_thresh": 0, "stability_score_thresh": 0}
MADE = ("corpus", "make", "--jobs", 1)


def card(folder: Path, model: str = "me/sam2", **teacher: object) -> Path:
    """A folder with a card of a SAM 2."""
    folder.mkdir()
    settings = {"kind": "transformers", "architecture": "sam2", "model": model} | ALL | teacher
    fields = {"name": "mine", "description": "x", "licence": "Apache-2.0", "contact": "x", "training_data": ["SA-V"]}
    (folder / "card.yaml").write_text(yaml.safe_dump(fields | {"recipe": {"teacher": settings}}))
    return folder


def test_a_corpus_of_a_folder_below_the_weights(pool: Path, tmp_path: Path, bench: Bench) -> None:
    hub_sams.write_sam2(tmp_path / "weights" / "me" / "sam2")
    words = ("--pool", pool, "--recipe", card(tmp_path / "mine") / "card.yaml", "--out", tmp_path / "c")
    made = bench(*MADE, *words, "--points-per-batch", 3)
    assert made.code == 0, made.err
    manifest = read_manifest(tmp_path / "c")
    assert manifest is not None
    assert (manifest.teacher["model"], manifest.teacher["revision"], manifest.device) == ("me/sam2", None, "cpu")
    assert len(manifest.teacher["sha256"]) == len(manifest.teacher["config_sha256"]) == 64
    assert "exists already" in bench(*MADE, *words).out
    refused = bench(*MADE, *words, "--checkpoint", "x.pth")
    assert refused.err == "bench: --checkpoint is for the teacher sam, not for transformers\n"


def test_a_corpus_without_the_hub_names_the_command_that_fetches(pool: Path, tmp_path: Path, bench: Bench) -> None:
    mine = card(tmp_path / "mine", "facebook/sam2.1-hiera-tinny", revision="v1")
    made = bench(*MADE, "--pool", pool, "--recipe", mine / "card.yaml", "--out", tmp_path / "c")
    assert made.code == 1
    assert made.err.startswith(
        "bench: the hub of facebook/sam2.1-hiera-tinny is not reachable: HF_HUB_OFFLINE is set; "
    )
    place = tmp_path / "weights" / "facebook" / "sam2.1-hiera-tinny"
    assert "to fetch: hf download facebook/sam2.1-hiera-tinny config.json" in made.err
    assert made.err.endswith(f"--revision v1 --local-dir {place}\n")
    assert not (tmp_path / "c").exists()


def test_from_a_card_to_a_bundle(
    shipped_protocol: None, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = card(tmp_path / "mine")
    matrix = write_matrix(tmp_path, ("none", str(mine / "card.yaml")), replicates=2)
    monkeypatch.chdir(tmp_path)
    skipped = bench("run", "--matrix", matrix, "--executor", "inline")
    assert skipped.code == 0, skipped.err
    assert "to fetch: hf download me/sam2" in skipped.out
    records = [record for record in read_records(Store(tmp_path / "store"))[0] if record.source == "mine"]
    assert {record.status for record in records} == {"skipped"}
    hub_sams.write_sam2(tmp_path / "weights" / "me" / "sam2")
    done = bench("run", "--matrix", matrix, "--executor", "inline")
    assert done.code == 0, done.out + done.err
    records = [record for record in read_records(Store(tmp_path / "store"))[0] if record.source == "mine"]
    assert sorted(record.status for record in records) == ["ok", "ok", "skipped", "skipped"]
    bench("data", "manifest", "scenes", "--out", tmp_path / "scenes.json")
    words = ("--manifest", tmp_path / "scenes.json")
    packed = bench("submit", "pack", mine, "--out", tmp_path / "bundles", *words)
    assert packed.code == 0, packed.out
    shutil.rmtree(tmp_path / "weights" / "me")
    verified = bench("submit", "verify", tmp_path / "bundles" / "mine", *words, "--store", tmp_path / "other")
    assert verified.code == 0, verified.out + verified.err


def test_files_that_change_after_planning_are_refused(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = hub_sams.write_sam2(tmp_path / "weights" / "me" / "sam2"), stages._STAGES["corpus"]
    matrix = write_matrix(tmp_path, (str(card(tmp_path / "mine") / "card.yaml"),), replicates=1)

    def changed(*args: object) -> None:
        (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
        real(*args)

    monkeypatch.setitem(stages._STAGES, "corpus", changed)
    ran = bench("run", "--matrix", matrix, "--executor", "inline", "--source", "mine")
    assert ran.code == 2, ran.err
    assert "config.json and preprocessor_config.json of me/sam2: config_sha256 is" in ran.out
