"""Files of models of the Hugging Face hub: where they are found, what is refused, and what is part of the identity."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import hub_sams
import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from pretrain_sources.recipe import TransformersTeacher
from pretrain_sources.teachers import TeacherError, identity, obstacle
from pretrain_sources.teachers.transformers_weights import FILES, find_or_fetch

COMMIT = "c" * 40


def settings(model: str = "me/sam2", **fields: object) -> TransformersTeacher:
    return TransformersTeacher.model_validate({"model": model, "architecture": "sam2"} | fields)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model me/sam2. Read only."""
    folder = tmp_path_factory.mktemp("hub")
    hub_sams.write_sam2(folder / "me" / "sam2")
    return folder


@pytest.fixture
def weights(root: Path, tmp_path: Path) -> Path:
    """A user's folder of weights with the model me/sam2 in it."""
    shutil.copytree(root, tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def hub(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[fake_hub.Hub]]:
    with fake_hub.online(root, tmp_path / "cache", monkeypatch) as handler:
        yield handler


def stop_of(asked: TransformersTeacher, weights: Path) -> str:
    stop = obstacle(asked, weights)
    assert stop is not None
    assert "\n" not in stop
    with pytest.raises(TeacherError) as error:
        find_or_fetch(asked, weights)
    assert str(error.value) == stop
    return stop


def tensors_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "me" / "sam2" / "model.safetensors").read_bytes()).hexdigest()


def test_the_identity_has_id_revision_and_hashes(weights: Path) -> None:
    one = identity(settings(revision="v1", points_per_batch=3), weights)
    assert (one["kind"], one["model"], one["architecture"]) == ("transformers", "me/sam2", "sam2")
    assert (one["revision"], one["sha256"]) == ("v1", tensors_sha256(weights))
    assert "points_per_batch" not in one
    assert one == identity(settings(revision="v1"), weights)
    shutil.copytree(weights, weights.parent / "elsewhere")
    assert one == identity(settings(revision="v1"), weights.parent / "elsewhere"), "the place is no part of it"
    for name in FILES:
        path = weights / "me" / "sam2" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert identity(settings(revision="v1"), weights) != one, name
        path.write_bytes(before)
    assert identity(settings(revision="v1", points_per_side=5), weights) != one


def test_recorded_hashes_need_no_files(tmp_path: Path, hub: type[fake_hub.Hub]) -> None:
    hashes = {"sha256": "a" * 64, "config_sha256": None}
    assert identity(settings(), tmp_path, hashes) | hashes == identity(settings(), tmp_path, hashes)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["sha256", "config_sha256"])
def test_another_hash_than_set_is_refused(name: str, weights: Path) -> None:
    found = identity(settings(), weights)[name]
    assert find_or_fetch(settings(**{name: found}), weights).tensors == weights / "me" / "sam2" / "model.safetensors"
    with pytest.raises(TeacherError, match=rf"{name} is {found[:12]}\.\.\., expected 000000000000\.\.\..*fix `{name}`"):
        find_or_fetch(settings(**{name: "0" * 64}), weights)
    assert identity(settings(**{name: "0" * 64}), weights)[name] == "0" * 64


# -- what cannot be used ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["", "/x", "a/b/c", "../x", "a/..", "a//b", "a--b", ".a", "a b", "a\n", "~/x", "C:x"])
def test_what_is_no_id_is_refused(model: str) -> None:
    with pytest.raises(ValidationError):
        settings(model)


@pytest.mark.parametrize("revision", ["", "../x", "a/../b", "/x", "a b", "-x"])
def test_what_is_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError):
        settings(revision=revision)


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    asked = settings("facebook/sam-vit-base", architecture="sam", revision="v1")
    stop = stop_of(asked, tmp_path / "my weights")
    reason, _, fix = stop.partition("; to fetch: ")
    assert reason == "the hub of facebook/sam-vit-base is not reachable: HF_HUB_OFFLINE is set"
    place = tmp_path / "my weights" / "facebook" / "sam-vit-base"
    assert fix == f"hf download facebook/sam-vit-base {' '.join(FILES)} --revision v1 --local-dir '{place}'"
    assert identity(asked, tmp_path)["sha256"] is None


def test_a_name_without_an_owner_is_a_folder(tmp_path: Path, root: Path) -> None:
    assert f"no folder {tmp_path / 'mine'}, and mine is not an id of the hub" in stop_of(settings("mine"), tmp_path)
    shutil.copytree(root / "me" / "sam2", tmp_path / "mine")
    assert obstacle(settings("mine"), tmp_path) is None


def test_an_incomplete_folder_is_refused_before_the_hub_is_asked(weights: Path, hub: type[fake_hub.Hub]) -> None:
    folder = weights / "me" / "sam2"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "preprocessor_config.json").unlink()
    stop = stop_of(settings(), weights)
    assert stop.startswith(
        f"{folder} has no preprocessor_config.json, model.safetensors (pytorch_model.bin is a pickle"
    )
    assert "; to fetch: hf download me/sam2" in stop
    assert identity(settings(), weights)["sha256"] is None
    assert hub.asked == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"model_type": "sam"}',
            "is of model_type 'sam', the card asks for architecture sam2: set `architecture: sam`",
        ),
        ('{"model_type": "sam_hq"}', "only sam and sam2 can be used; masks that another program drew"),
        ("{}", "is of model_type None"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "holds a list, not settings by name"),
        ('{"model_type": "sam2"}' + " " * 2**20, "more than 1048576 bytes"),
    ],
)
def test_a_configuration_of_another_model_is_refused(content: str, message: str, weights: Path) -> None:
    (weights / "me" / "sam2" / "config.json").write_text(content)
    assert message in stop_of(settings(), weights)


def test_a_sam_2_named_as_sam_is_refused(weights: Path) -> None:
    stop = stop_of(settings(architecture="sam"), weights)
    assert "is of model_type 'sam2', the card asks for architecture sam: set `architecture: sam2`, or correct" in stop
    assert obstacle(settings(), weights) is None


def test_a_folder_of_another_commit_is_refused(weights: Path) -> None:
    noted = weights / "me" / "sam2" / ".cache" / "huggingface" / "download"
    noted.mkdir(parents=True)
    (noted / "model.safetensors.metadata").write_text(f"{COMMIT}\netag\n123.4\n")
    for revision in (COMMIT, "v1", None):
        assert obstacle(settings(revision=revision), weights) is None
    stop = stop_of(settings(revision="d" * 40), weights)
    assert "holds commit cccccccccccc... of me/sam2, the card asks for dddddddd" in stop


# -- the hub ---------------------------------------------------------------------------------------------------------------


def test_a_model_is_planned_by_its_hash_and_then_downloaded_once(
    hub: type[fake_hub.Hub], root: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere, local = tmp_path / "nowhere", identity(settings(), weights)
    assert obstacle(settings(), nowhere) is None
    assert identity(settings(), nowhere) == local
    assert hub.asked == ["info me/sam2", "config.json", "preprocessor_config.json"], "the tensors only when needed"
    files = find_or_fetch(settings(sha256=local["sha256"], config_sha256=local["config_sha256"]), nowhere)
    assert files.tensors.read_bytes() == (root / "me" / "sam2" / "model.safetensors").read_bytes()
    assert files.config["model_type"] == "sam2"
    assert hub.asked[3:] == ["model.safetensors"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert obstacle(settings(), nowhere) is None
    assert find_or_fetch(settings(), nowhere) == files
    assert len(hub.asked) == 4
    assert "not reachable" in str(obstacle(settings(revision="v1"), nowhere)), "another revision is not in the cache"


def test_a_revision_is_asked_for(hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    assert "/1111111111/" in str(find_or_fetch(settings(revision="v1"), tmp_path).tensors).replace("1" * 40, "1" * 10)
    assert "me/sam2 on the hub has no revision v7: correct `revision`" in stop_of(settings(revision="v7"), tmp_path)


def test_a_typo_in_the_id(hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    assert stop_of(settings("me/sam3"), tmp_path).startswith("the hub has no model me/sam3: correct `model`")
    assert identity(settings("me/sam3"), tmp_path)["sha256"] is None
    stop_of(settings("me/sam2", architecture="sam"), tmp_path)
    assert "model.safetensors" not in hub.asked, "another architecture is known without the tensors"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((403, "GatedRepo"), "me/sam2 asks for an agreement on the hub: accept it there and run `hf auth login`"),
        ((500, "Oops"), "the hub failed for me/sam2: .*500.*; to fetch: hf download me/sam2"),
    ],
)
def test_a_hub_that_refuses(fault: tuple[int, str], message: str, hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    hub.fault = fault
    with pytest.raises(TeacherError, match=message):
        find_or_fetch(settings(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rfilename": "model-00001-of-00002.safetensors"}, "me/sam2 on the hub has no model.safetensors, and nothing"),
        ({"size": 5 * 10**9}, "model.safetensors of me/sam2 has 5.0 GB or more, the limit is 4 GB"),
        ({"lfs": None}, "the hub gives no sha256 of model.safetensors"),
    ],
)
def test_a_model_that_cannot_be_used(
    changes: dict[str, object], message: str, hub: type[fake_hub.Hub], tmp_path: Path
) -> None:
    hub.changes = changes
    assert message in stop_of(settings(), tmp_path)
    assert len(hub.asked) == 1


def test_tensors_that_were_replaced_since_they_were_planned(hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    hub.changes = {"lfs": {"sha256": "f" * 64, "size": 1, "pointerSize": 1}}
    planned = identity(settings(), tmp_path)["sha256"]
    assert planned == "f" * 64
    with pytest.raises(TeacherError, match="expected ffffffffffff"):
        find_or_fetch(settings(sha256=planned), tmp_path)


def test_a_download_that_breaks(hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    assert obstacle(settings(), tmp_path) is None
    hub.fault = (404, "EntryNotFound")
    with pytest.raises(
        TeacherError, match=r"the download of model.safetensors of me/sam2 failed: .*; try again, or fetch"
    ):
        find_or_fetch(settings(), tmp_path)


def test_the_answer_of_the_hub_is_kept_by_id_and_revision(hub: type[fake_hub.Hub], tmp_path: Path) -> None:
    for _ in range(3):
        obstacle(settings(), tmp_path)
        identity(settings(points_per_side=3), tmp_path)
    assert hub.asked.count("info me/sam2") == 1
    assert json.loads((tmp_path / "cache" / "models--me--sam2" / "snapshots" / COMMIT / "config.json").read_text())
