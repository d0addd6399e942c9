"""A submission: card, check, runs beside the baselines, bundle, and the board that shows it."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from conftest import Bench
from submitted import CARD, Packed, card_folder
from test_dashboard import Open, opened, texts  # noqa: F401 - opened is a fixture

from backbones import network
from backbones.registry import BACKBONES
from bench.submission import verify
from bench.targets import open_target
from bench.targets.manifest import make_manifest, shipped_manifests
from pretrain_sources.card import SourceCard
from pretrain_sources.config_file import read_yaml
from pretrain_sources.template import KINDS, schema, template
from results import load_table
from results.board import board
from results.bundle import read_verdict
from results.record import OF_SUBMISSIONS
from results.record_files import read_records
from results.store import Store

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_a_valid_card_with_gaps_to_fill_in(
    kind: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("submit", "init", "mine/v2", "--kind", kind).code == 0
    folder = tmp_path / "mine--v2"
    card = read_yaml(folder / "card.yaml", SourceCard)
    assert card.name == "mine/v2"
    assert json.loads((folder / "card.schema.json").read_text()) == SourceCard.model_json_schema()
    result = bench("submit", "check", "mine--v2")
    assert result.code == 1
    for field in ("description", "licence", "contact", "training_data"):
        assert f"FAULT {field}:" in result.out, "every fault at once"
    again = bench("submit", "init", "mine/v2", "--kind", kind)
    assert (again.code, "exists already" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("name", "why"),
    [("imagenet", "exists already"), ("satir/top-4", "exists already"), ("../x", "not a valid source name")],
)
def test_a_taken_or_invalid_name_is_rejected(
    name: str, why: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = bench("submit", "init", name, "--kind", "recipe")
    assert result.code == 1
    assert why in result.err
    assert not [path for path in tmp_path.iterdir() if path.name not in ("weights", "store")]


def test_templates_and_cards_in_the_documentation_are_valid(tmp_path: Path) -> None:
    texts = [template("mine", kind) for kind in KINDS]
    for page in ("pretrain_sources/README.md", "CONTRIBUTING.md"):
        blocks = (ROOT / page).read_text().split("```yaml\n")[1:]
        texts += [block.split("```")[0] for block in blocks if block.startswith("name:")]
    assert len(texts) >= 5, "two kinds of card are documented"
    for text in texts:
        (tmp_path / "card.yaml").write_text(text)
        read_yaml(tmp_path / "card.yaml", SourceCard)


def test_the_schema_forbids_unknown_keys() -> None:
    made = json.loads(schema())
    assert made["additionalProperties"] is False
    assert set(made["properties"]) == set(SourceCard.model_fields)


CHECKPOINT = {"backbones": ["tiny"], "path": "weights.safetensors"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": None}, "give either path or url"),
        ({"url": "https://example.org/w.safetensors"}, "give either path or url"),
        ({"path": None, "url": "https://example.org/w.safetensors"}, "needs the sha256"),
        ({"path": None, "url": "file:///etc/passwd", "sha256": "0" * 64}, "does not match"),
        ({"sha256": "0" * 64}, "its card says 000000000000..."),
        ({"path": "elsewhere.pth"}, "cannot read its checkpoint"),
        ({"backbones": ["fpn-resnet5O"]}, "did you mean 'fpn-resnet50'"),
        ({"mean": [0.5, 0.5, 0.5]}, "give both mean and std"),
        (
            {"rename": {"(": "x"}},
            "rename takes literal prefixes, and '(' looks like a regular",
        ),
        ({"rename": {r"^module\.": ""}}, "write 'module.': ''"),
        ({"rename": {r"^module\..*": ""}}, "write 'module.': null"),
        ({"rename": {r"layer(\d)": r"stage\1"}}, "one entry for each prefix"),
        ({"rename": {f"a{i}": "" for i in range(2000)}}, "at most 1000"),
        ({"rename": {"nothing-like-it": "x"}}, "nothing-like-it"),
        ({"inside": "teacher"}, "teacher"),
    ],
)
def test_a_wrong_checkpoint_is_reported_with_its_fix(
    change: dict[str, object], why: str, bench: Bench, tmp_path: Path
) -> None:
    folder = card_folder(tmp_path / "mine", checkpoints=[CHECKPOINT | change])
    result = bench("submit", "check", folder)
    assert result.code == 1
    assert why in result.out


def test_a_missing_tensor_is_reported_with_the_nearest_names(bench: Bench, tmp_path: Path) -> None:
    folder = card_folder(
        tmp_path / "mine",
        checkpoints=[CHECKPOINT | {"rename": {"module.encoder.stages.1.0.weight": "module.encoder.stages.1.0.wait"}}],
    )
    result = bench("submit", "check", folder)
    assert result.code == 1
    assert "no tensor for stages.1.0.weight; nearest in the file: " in result.out
    assert "module.encoder.stages.1.0.weight" in result.out


def test_the_check_counts_the_tensors_of_a_good_checkpoint(bench: Bench, tmp_path: Path) -> None:
    result = bench("submit", "check", card_folder(tmp_path / "mine"))
    assert result.code == 0, result.out
    count = len(network.build(BACKBONES["tiny"], 2).encoder.state_dict())
    assert f"tiny: {count} of {count} tensors" in result.out
    assert "module.encoder." in result.out
    assert "tried one decoder" not in result.out


def test_the_check_names_all_backbones_that_a_glob_matches(bench: Bench, tmp_path: Path) -> None:
    lite = CHECKPOINT | {"backbones": ["*-efficientnet-lite1"], "path": "lite.safetensors"}
    folder = card_folder(tmp_path / "mine", checkpoints=[CHECKPOINT, lite])
    encoder = network.build(BACKBONES["fpn-efficientnet-lite1"], 2).encoder.state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in encoder.items()}
    safetensors.torch.save_file(tensors, folder / "lite.safetensors")
    result = bench("submit", "check", folder)
    assert result.code == 0, result.out
    (line,) = [line for line in result.out.splitlines() if "matches" in line]
    assert line == (
        "  *-efficientnet-lite1: matches fpn-efficientnet-lite1, unet-efficientnet-lite1; "
        "tried one decoder per encoder: unet-efficientnet-lite1"
    )


def test_a_card_file_stands_for_its_folder(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    checked = bench("submit", "check", packed.folder / "card.yaml")
    assert checked.code == 0, checked.out
    assert f"{packed.folder}: ready to run: bench run --matrix ... --source {packed.folder}," in checked.out
    words = ("--store", packed.store, "--out", tmp_path / "out")
    bench("submit", "pack", packed.folder / "card.yaml", *words)
    assert (tmp_path / "out" / "mine" / "card.yaml").is_file()
    for command in (("check", packed.matrix), ("pack", packed.matrix, *words)):
        result = bench("submit", *command)
        assert result.code == 1
        assert (
            f"{packed.matrix} is a file: give the folder of the source, which holds its card as card.yaml" in result.err
        )


def test_a_checkpoint_without_images_is_not_searched_for_leaks(bench: Bench, tmp_path: Path) -> None:
    result = bench("submit", "check", card_folder(tmp_path / "mine"), "--target", "scenes")
    assert result.code == 0, result.out
    (line,) = [line for line in result.out.splitlines() if "leaks" in line]
    assert line == (
        "  leaks: no image was searched for test images of scenes, because 'mine' has no thermal images of its own; "
        "to search those that its checkpoints were trained on, give their folder with --pool DIR"
    )


def test_a_placeholder_is_not_a_contact(bench: Bench, tmp_path: Path) -> None:
    result = bench("submit", "check", card_folder(tmp_path / "mine", contact="TODO"))
    assert result.code == 1
    assert "contact: missing; say whom to ask" in result.out


def test_a_source_that_declares_the_target_as_training_data_is_a_leak(
    packed: Packed, bench: Bench, tmp_path: Path
) -> None:
    folder = card_folder(tmp_path / "mine", training_data=["scenes"])
    assert bench("run", "--matrix", packed.matrix, "--source", folder, "--executor", "inline").code == 0
    rows = json.loads(bench("table", "--format", "json").out)
    assert {row["source"]: row["leak"] is None for row in rows} == {"none": True, "mine": False}


def test_a_card_without_weights_for_a_backbone_skips_that_cell(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    folder = card_folder(tmp_path / "mine")
    written = yaml.safe_load(packed.matrix.read_text())
    matrix = tmp_path / "two.yaml"
    matrix.write_text(yaml.safe_dump(written | {"backbones": ["tiny", "fpn-resnet50"]}))
    planned = bench("plan", "--matrix", matrix, "--source", folder)
    assert planned.code == 0, planned.err
    result = bench("run", "--matrix", matrix, "--source", folder, "--source", "[!n]*", "--executor", "inline")
    assert result.code == 0, result.err
    rows = {row["backbone"]: row for row in json.loads(bench("table", "--format", "json").out)}
    assert rows["tiny"]["status"] == "ok"
    assert (rows["fpn-resnet50"]["status"], rows["fpn-resnet50"]["reason"]) == (
        "skipped",
        "the card of 'mine' has no checkpoint for fpn-resnet50",
    )


def test_a_card_without_weights_for_any_backbone_is_refused(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    folder = card_folder(tmp_path / "mine", checkpoints=[CHECKPOINT | {"backbones": ["fpn-resnet50"]}])
    for command in ("plan", "run"):
        result = bench(command, "--matrix", packed.matrix, "--source", folder)
        assert result.code == 1
        assert "no backbone fits 'mine': its card lists fpn-resnet50; " in result.err
    assert not (tmp_path / "store").exists(), "nothing ran"


def test_each_backbone_gets_its_own_checkpoint(bench: Bench, tmp_path: Path) -> None:
    folder = card_folder(tmp_path / "mine")
    other = {"backbones": ["fpn-resnet50"], "path": "other.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": [CHECKPOINT, other]}))
    small = network.build(BACKBONES["fpn-resnet50"], 2).encoder.state_dict()
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in small.items()}, folder / str(other["path"])
    )
    result = bench("submit", "check", folder)
    assert result.code == 0, result.out
    counts = {name: len(network.build(BACKBONES[name], 2).encoder.state_dict()) for name in ("tiny", "fpn-resnet50")}
    assert all(f"{name}: {count} of {count} tensors" in result.out for name, count in counts.items())
    assert "tensors read from weights.safetensors" in result.out
    assert "tensors read from other.safetensors" in result.out


def test_a_submission_runs_beside_the_baselines(packed: Packed) -> None:
    statuses = {(r.source, r.replicate): r.status for r in packed.records()}
    assert statuses == {(source, number): "ok" for source in ("none", "mine") for number in (0, 1)}


def test_a_bundle_is_small_and_has_no_weights_images_or_local_paths(packed: Packed) -> None:
    files = [path for path in packed.bundle.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert {path.suffix for path in files} == {".json", ".yaml", ".npz", ".csv", ".jsonl"}
    for path in files:
        if path.suffix != ".npz":
            assert str(packed.folder.parent) not in path.read_text(), path
    card = yaml.safe_load((packed.bundle / "card.yaml").read_text())
    assert card["checkpoints"][0]["path"] == "weights.safetensors"
    assert len(card["checkpoints"][0]["sha256"]) == 64


def test_the_badge_is_the_level_of_the_verdict(packed: Packed, bench: Bench, scenes: Path, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    verified = [("submit", "verify", here.bundle, "--manifest", here.manifest)]
    result = bench(*verified[0])
    assert result.code == 0, result.out
    assert "2 runs recomputed from their evidence" in result.out
    assert badge_of(here) == "recomputed"
    result = bench(*verified[0], "--spot", 4000, "--networks", packed.networks, "--seed", 1)
    assert result.code == 0, result.out
    pairs = sum(r.scores.test_images for r in packed.records() if r.scores is not None and r.source == "mine")
    assert f"{pairs} random test images predicted again" in result.out, "each image of each run once"
    assert badge_of(here) == "spot-checked"
    again = bench(*verified[0])
    assert again.code == 0
    assert "says 'spot-checked', which this check did not repeat: delete it if you do not trust it" in again.out
    assert badge_of(here) == "spot-checked", "a less thorough check does not lower it"
    result = bench(*verified[0], "--reproduce", "--source", packed.folder, "--seed", 1)
    assert result.code == 0, result.out
    assert "the same scores, bit for bit" in result.out
    assert badge_of(here) == "reproduced"


def badge_of(here: Packed) -> str:
    """The badge on a board of the bundle alone."""
    empty = here.bundle.parent.parent / "bench-store"
    empty.mkdir(exist_ok=True)
    cells = board(load_table(empty))
    return "claimed" if cells.empty else str(cells["badge"].iloc[0])


def test_the_board_shows_a_submission_with_its_badge_and_own_runs_once(
    packed: Packed,
    bench: Bench,
    tmp_path: Path,
    opened: Open,  # noqa: F811
) -> None:
    here = packed.copy(tmp_path)
    shutil.copytree(packed.store, tmp_path / "bench-store")
    runs = load_table(tmp_path / "bench-store")
    assert len(runs) == 4, "runs in both the store and the bundle count once"
    assert runs["badge"].isna().all()
    for path in (tmp_path / "bench-store").glob("*/*/mine"):
        shutil.rmtree(path)
    result = bench("table", "--store", tmp_path / "bench-store")
    assert "mine" not in result.out
    assert "not verified: run `bench submit verify" in result.err
    assert bench("submit", "verify", here.bundle, "--manifest", here.manifest).code == 0
    result = bench("table", "--store", tmp_path / "bench-store")
    assert "mine (submitted, recomputed)" in result.out
    compared = bench("compare", "mine", "none", "--store", tmp_path / "bench-store", "--per-class")
    assert compared.code == 0, compared.err
    judged = bench("claim", "mine > none", "--store", tmp_path / "bench-store")
    tiers = bench("table", "--tiers", "--store", tmp_path / "bench-store")
    for result in (compared, judged, tiers):
        assert "mine was submitted, not measured here (recomputed)" in result.out
    for page in ("Leaderboard", "Compare", "Images", "Run"):
        assert "not measured here" in texts(opened(tmp_path / "bench-store", page=page, search="mine")), page
    assert set(OF_SUBMISSIONS) <= set(load_table(tmp_path / "bench-store").columns)
    record = next(here.bundle.rglob("record.json"))
    record.write_text(record.read_text().replace('"miou": 0', '"miou": 0.9', 1))
    result = bench("table", "--store", tmp_path / "bench-store")
    assert "record.json was changed after it was packed" in result.err
    assert load_table(tmp_path / "bench-store")["source"].tolist() == ["none", "none"]


def test_a_verdict_is_valid_for_one_bundle_only(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert badge_of(here) == "recomputed"
    here.repack()
    assert badge_of(here) == "claimed", "other files were packed since"
    assert "changed since it was verified" in str(load_table(tmp_path / "bench-store").attrs["unreadable"])
    verdict = read_verdict(here.bundle)
    assert verdict is not None
    assert verdict.level == "recomputed"


def test_a_bundle_in_a_folder_of_another_name_is_left_out(packed: Packed, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    here.bundle.rename(here.bundle.with_name("imagenet"))
    (tmp_path / "bench-store").mkdir()
    table = load_table(tmp_path / "bench-store")
    assert table.empty
    assert "rename its folder to mine" in str(table.attrs["unreadable"])


def test_packing_again_replaces_the_bundle(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    for _ in range(2):
        result = bench("submit", "pack", packed.folder, "--store", packed.store, "--out", tmp_path / "out")
    result = bench("submit", "verify", tmp_path / "out" / "mine", "--manifest", packed.manifest)
    assert result.code == 0, result.out
    result = bench("submit", "pack", packed.folder, "--store", tmp_path / "nothing", "--out", tmp_path / "out")
    assert result.code == 1
    assert "no store at" in result.err


def test_a_shipped_manifest_matches_the_files(hit_uav: Path) -> None:
    made = make_manifest(open_target("hit-uav", hit_uav))
    assert shipped_manifests()[made.key] == made


def test_shipped_manifests_are_found_by_content() -> None:
    """Runs of either cut of hit-uav are checked against their own images."""
    cuts = {key: made for key, made in shipped_manifests().items() if key[0] == "hit-uav"}
    assert sorted(len(made.test) for made in cuts.values()) == [180, 368]
    shipped = {(one.target, one.target_hash) for one in read_records(Store(ROOT / "results" / "runs"))[0]}
    assert shipped <= set(shipped_manifests())
    assert len({len({image.group for image in made.test}) for made in cuts.values()}) == 2


def test_the_shipped_store_passes() -> None:
    assert verify.judge(ROOT / "results" / "runs").faults == []


def test_an_incomplete_store_passes_with_a_note(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("cache"))
    shutil.rmtree(next((tmp_path / "runs").glob("*/*/imagenet/fpn-efficientnet-lite0/r1-*")))
    judged = verify.judge(tmp_path / "runs")
    assert judged.faults == []
    assert "imagenet x fpn-efficientnet-lite0: replicates 1 of 5 are missing, so it is not ranked" in judged.notes
    assert "incomplete" in set(board(load_table(tmp_path / "runs"))["status"])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a folder `served` of this test, on this machine."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_checkpoint_is_downloaded_once_and_kept_only_if_its_hash_matches(
    served: str, bench: Bench, tmp_path: Path
) -> None:
    folder = card_folder(tmp_path / "mine")
    weights = folder / "weights.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = {"backbones": ["tiny"], "url": f"{served}/weights.safetensors", "sha256": sha256}
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": [entry]}))
    result = bench("submit", "check", folder)
    assert (result.code, "404" in result.out) == (1, True), "not served yet"
    (tmp_path / "served" / "other.safetensors").write_bytes(b"other bytes")
    other = entry | {"url": f"{served}/other.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": [other]}))
    result = bench("submit", "check", folder)
    assert (result.code, "nothing was kept" in result.out) == (1, True)
    assert not list((tmp_path / "weights").rglob("*.safetensors"))
    weights.rename(tmp_path / "served" / "fine.safetensors")
    fine = entry | {"url": f"{served}/fine.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": [fine]}))
    assert bench("submit", "check", folder).code == 0
    assert [path.name for path in (tmp_path / "weights").rglob("*.safetensors")] == [f"{sha256}.safetensors"]
    (tmp_path / "served" / "fine.safetensors").unlink()
    assert bench("submit", "check", folder).code == 0, "it was kept"


def test_runs_in_a_bundle_do_not_count_as_done_here(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    assert bench("submit", "verify", here.bundle, "--manifest", here.manifest).code == 0
    (tmp_path / "bench-store").mkdir()
    words = ("--matrix", packed.matrix, "--source", packed.folder, "--store", tmp_path / "bench-store")
    result = bench("plan", *words)
    assert result.code == 0, result.err
    assert "4 units: 0 done, 4 to do" in result.out, result.out
    assert "mine" not in bench("status", "--store", tmp_path / "bench-store").out
    assert "mine (submitted, recomputed)" in bench("table", "--store", tmp_path / "bench-store").out
