"""A backbone from a file outside the package: named in a matrix, run, refused, and identified by its version."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from conftest import Bench, run_inline, write_matrix
from own_backbone import EXAMPLE, Code, install
from submitted import CARD
from test_dashboard import PAGES, Open, opened, texts  # noqa: F401 - opened is a fixture

from backbones import contract, imagenet, network
from backbones.registry import find_backbone, installed
from backbones.spec import BackboneError
from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.plan.units import backbone_hash
from results import load_table

NAME = "own_net:build"


@pytest.fixture(scope="module")
def store(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with finished runs of the example beside the tests' tiny network."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        made = Code(folder)
        made.write("own_net")
        run_inline(write_matrix(folder, ("none", "satir/felzenszwalb"), (NAME, "tiny")), folder / "store", scenes)
        made.forget()
    return folder / "store"


def test_the_example_is_complete_and_keeps_the_contract(
    code: Code, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    code.write("own_net")
    monkeypatch.chdir(code.folder)
    done = bench("backbone", "check", NAME)
    assert done.code == 0, done.out + done.err
    assert done.out.count("ok ") == len(contract.CLAUSES)
    assert "own_net:build (own_net:build version 1, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225))" in done.out
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 15


def test_it_is_compared_with_other_backbones(store: Path, bench: Bench) -> None:
    runs = load_table(store)
    assert (runs["status"] == "ok").all()
    assert runs.groupby("backbone").size().to_dict() == {NAME: 4, "tiny": 4}
    assert bench("compare", "satir/felzenszwalb", "none", "--store", store).out.count(NAME) == 1
    assert f"none x {NAME}" in bench("status", "--store", store).out
    assert bench("status", f"none x {NAME}", "--store", store).code == 0
    assert bench("table", "--backbone", NAME, "--store", store).out.count(NAME) == 2


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_dashboard_shows_it(page: str, store: Path, opened: Open) -> None:  # noqa: F811
    app = opened(store, page=page, backbone=NAME)
    assert not app.exception, app.exception
    assert not app.error, texts(app)


def test_worker_processes_find_a_module_beside_the_matrix(
    code: Code, store: Path, bench: Bench, tmp_path: Path
) -> None:
    code.write("own_net")
    path = write_matrix(tmp_path, backbones=(NAME,))
    done = bench("run", "--matrix", path, "--store", tmp_path / "local", "--jobs", 2)
    assert done.code == 0, done.err
    columns = ["run", "miou", "weighted_f", "network_sha256"]
    both = [load_table(one).set_index("run") for one in (tmp_path / "local", store)]
    ours, theirs = (runs[(runs["source"] == "none") & (runs["backbone"] == NAME)].sort_index() for runs in both)
    pd.testing.assert_frame_equal(ours[columns[1:3]], theirs[columns[1:3]])


def test_another_version_makes_a_new_cell_and_an_edit_does_not(code: Code, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, backbones=(NAME,), replicates=1)
    words = ("run", "--matrix", path, "--executor", "inline")
    code.write("own_net")
    assert "1 runs done" in bench(*words).out
    code.write("own_net", f"{EXAMPLE}\n# an edit\n")
    assert "nothing to do" in bench(*words).out
    code.write("own_net", EXAMPLE.replace('version = "1"', 'version = "2"'))
    assert "1 runs done" in bench(*words).out
    runs = load_table(tmp_path / "store")
    assert len(runs) == 2
    assert runs["cell"].nunique() == 2
    assert sorted(bench("table", "--format", "csv").out.count(word) for word in (",stale", ",ok")) == [1, 1]


def test_code_that_changes_during_a_run_fails_its_units(code: Code, tmp_path: Path) -> None:
    code.write("own_net")
    spec = load_matrix(str(write_matrix(tmp_path, backbones=(NAME,)))).backbones[NAME]
    assert isinstance(network.build(spec, 2), network.Network)
    code.write("own_net", EXAMPLE.replace('version = "1"', "version = 2"))
    with pytest.raises(
        BackboneError, match=r"was own_net:build version 1 and is .* version 2 now: run the same command"
    ):
        network.build(spec, 2)


def test_identity_is_name_version_and_normalisation(code: Code) -> None:
    sys.path.append(str(code.folder))
    hashes = set()
    for change in ("", "mean = (0.5, 0.5, 0.5)", "std = [1, 1, 1]", "build.version = 'b'", "version = 3"):
        code.write("own_net", f"{EXAMPLE}\n{change}\n")
        hashes.add(backbone_hash(find_backbone(NAME)))
    code.write("own_net2")
    assert len(hashes | {backbone_hash(find_backbone("own_net2:build"))}) == 6


def refusal(code: Code, source: str, name: str = NAME) -> str:
    """Why a matrix with this backbone is refused."""
    code.write("own_net", source)
    path = write_matrix(code.folder, backbones=("tiny", name))
    with pytest.raises(BenchError) as wrong:
        load_matrix(str(path))
    assert str(wrong.value).startswith(f"{path}: backbone '{name}'")
    assert "\n" not in str(wrong.value)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1"', "", "own_net:build has no version: write version = '1' in own_net"),
        ('version = "1"', "version = ''", "the version of own_net:build is '': write a text such as '1'"),
        ('version = "1"', "version = 1.5", "the version of own_net:build is 1.5: write a text"),
        ('version = "1"', "version = True", "the version of own_net:build is True: write a text"),
        ('version = "1"', "version = 'v 1'", "the version of own_net:build is 'v 1': write a text"),
        ("from torch", "mean = (0.5, 0.5)\nfrom torch", r"mean of own_net:build is \(0.5, 0.5\): write three numbers"),
        ("from torch", "std = 0.5\nfrom torch", r"std of own_net:build is 0.5: write three numbers"),
        ("from torch", "mean = [124, 116, 104]\nfrom torch", r"is \[124, 116, 104\]: .* for images in 0..1"),
        ("from torch", "std = (0.5, 0, 0.5)\nfrom torch", r"std of own_net:build is .*: every value must be above 0"),
        ("from torch", "mean = '124'\nfrom torch", r"mean of own_net:build is '124': write three numbers"),
        (
            "from torch",
            "import nowhere\nfrom torch",
            r"own_net cannot be imported: ModuleNotFound.*own_net.py, line 1\)",
        ),
        ("from torch", "from torch(", r"own_net cannot be imported: SyntaxError: .*\(own_net.py, line 1\)"),
        ("from torch", "raise SystemExit(0)\nfrom torch", "own_net cannot be imported: SystemExit: 0"),
        ("def build", "def make", "own_net.py has no function 'build'; define it, or correct the name"),
        ("def build", "build = 3\ndef make", "own_net:build is int, not a function"),
        ("def build(num_classes)", "def build()", "clause 'builds': .* takes 0 positional arguments but 1 was given"),
        ("    stages =", "    1 / 0\n    stages =", r"clause 'builds': .*ZeroDivisionError.*own_net.py, line \d+\)"),
        ("return Encoder(stages), D", "return D", "clause 'builds': own_net:build returned Decoder: return"),
        ("in self:", "in ():", "clause 'features': the encoder returns an empty list"),
        ("return maps[1:]", "return maps[-1]", "clause 'features': the encoder returns one tensor"),
        ("Decoder(24, num_classes", "Decoder(24, 7", r"clause 'logits': .* shape \(2, 7, 8, 12\) .* num_classes 5"),
        ("forward(maps[-1])", "forward(maps[-1]).mT", "clause 'logits': .* height and width are exchanged"),
        ("maps = [images]", "maps = [images.mul_(2)]", "clause 'input': the encoder changes the images"),
        ("forward(maps[-1])", "forward(maps[-1] * 0 + 1).cumsum(3)", "clause 'decoder': .* for two images"),
    ],
)
def test_what_breaks_the_contract_is_refused_in_one_line(old: str, new: str, message: str, code: Code) -> None:
    assert EXAMPLE.count(old) == 1
    assert re.search(message, refusal(code, EXAMPLE.replace(old, new)))


def test_an_encoder_without_parameters_is_refused(code: Code) -> None:
    source = EXAMPLE.replace("Encoder(stages)", "Encoder([nn.AvgPool2d(8)])").replace("Decoder(24", "Decoder(3")
    assert "clause 'parameters': the encoder has no parameters" in refusal(code, source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere:build",
            r"No module named 'nowhere'; searched the installed packages and .*{folder}.*put nowhere.py beside",
        ),
        ("own_net.inner:build", "No module named 'own_net.inner': 'own_net' is not a package"),
        ("__main__:build", "__main__ is a program"),
        (
            "own_net:build:x",
            "'own_net:build:x' is neither module:function nor DECODER:ENCODER; timm encoders go with fpn",
        ),
        ("own_net:", "'own_net:' is neither module:function"),
        ("os:getcwd", "os:getcwd has no version"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, message: str, code: Code) -> None:
    assert re.search(message.format(folder=code.folder), refusal(code, EXAMPLE, name))


def test_no_import_searches_the_folders_of_other_matrices(code: Code, tmp_path: Path) -> None:
    before = [*sys.path]
    assert load_matrix(str(write_matrix(tmp_path, backbones=("tiny", "fpn:resnet18")))).code == ()
    assert sys.path == before
    code.write("own_net")
    assert load_matrix(str(write_matrix(tmp_path, backbones=("tiny", NAME)))).code == (Path.cwd(), tmp_path)
    assert sys.path == [*before, *(str(folder) for folder in (Path.cwd(), tmp_path) if str(folder) not in before)]


def test_an_installed_module_comes_before_one_beside_the_matrix(code: Code, tmp_path: Path) -> None:
    sys.path.append(str(tmp_path / "installed"))
    code.write("own_net", EXAMPLE.replace('version = "1"', 'version = "beside"'))
    code.write("installed.own_net")
    matrix = load_matrix(str(write_matrix(tmp_path, backbones=(NAME,))))
    assert matrix.backbones[NAME].encoder == "own_net:build version 1"


def test_a_backbone_that_stands_twice_is_refused(code: Code, tmp_path: Path) -> None:
    code.write("own_net")
    with pytest.raises(BenchError, match=f"duplicate name '{NAME}'"):
        load_matrix(str(write_matrix(tmp_path, backbones=(NAME, NAME))))


def test_a_space_after_the_colon_is_named(code: Code, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    path.write_text(path.read_text().replace("- tiny", "- own_net: build"))
    assert "write own_net:build, without a space after the colon" in bench("plan", "--matrix", path).err


@pytest.fixture
def package(code: Code, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    """An installed package with the example as the backbones `own-net` and, clashing, `tiny` and `twice`."""
    folder = code.folder / "site"
    code.write("site.own_net_package.networks")
    (folder / "own_net_package" / "__init__.py").touch()
    entry = "own_net_package.networks:build"
    install(folder, "own-net", **{"own-net": entry, "tiny": entry, "twice": entry, "odd": "own_net_package"})
    install(folder, "second", twice="elsewhere:build")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    installed.cache_clear()
    yield code
    installed.cache_clear()


def test_an_entry_point_of_an_installed_package_is_a_backbone(package: Code, bench: Bench, tmp_path: Path) -> None:
    spec = find_backbone("own-net")
    assert (spec.name, spec.encoder) == ("own-net", "own_net_package.networks:build version 1")
    assert spec.weights_folder == "own-net"
    listed = bench("ls").out
    assert re.search(r"^  own-net +own_net_package.networks:build, of own-net 1.0$", listed, re.MULTILINE)
    assert bench("backbone", "check", "own-net").code == 0
    path = write_matrix(tmp_path, backbones=("own-net",), replicates=1)
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    assert load_table(tmp_path / "store")["backbone"].tolist() == ["own-net"]
    assert "did you mean 'own-net'?" in bench("backbone", "check", "own-nat").err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny", "2 backbones have this name, of satir-bench and own-net 1.0: rename or uninstall one"),
        (
            "twice",
            "2 backbones have this name, of (own-net|second) 1.0 and (own-net|second) 1.0: rename or uninstall one",
        ),
        ("odd", "'own_net_package' is neither module:function"),
    ],
)
def test_entry_points_that_clash_or_name_no_function_are_refused(name: str, message: str, package: Code) -> None:
    with pytest.raises(BenchError, match=message):
        load_matrix(str(write_matrix(package.folder, backbones=(name,))))


def tensors_of(code: Code, prefix: str = "") -> dict[str, torch.Tensor]:
    sys.path.append(str(code.folder))
    torch.manual_seed(3)
    encoder = network.build(find_backbone(NAME), 2).encoder.state_dict()
    return {prefix + name: tensor.contiguous() for name, tensor in encoder.items()}


def test_imagenet_weights_come_from_a_folder_of_its_name(code: Code, bench: Bench, tmp_path: Path) -> None:
    code.write("own_net")
    path = write_matrix(tmp_path, ("imagenet",), (NAME,), replicates=1)
    place = tmp_path / "weights" / "own_net.build"
    assert (
        f"no ImageNet weights are known for {NAME}; to fetch: put model.safetensors into {place}"
        in bench("run", "--matrix", path, "--executor", "inline").out
    )
    place.mkdir(parents=True)
    safetensors.torch.save_file(tensors_of(code, "module."), place / "model.safetensors")
    done = bench("run", "--matrix", path, "--executor", "inline")
    assert "1 runs done" in done.out, done.out + done.err
    (row,) = load_table(tmp_path / "store").query("status == 'ok'").to_dict("records")
    assert str(row["weights"]).startswith("folder own_net.build sha256:")
    spec = find_backbone(NAME)
    origin = imagenet.locate(spec, tmp_path / "weights")
    assert origin is not None
    assert imagenet.fetch(spec, origin, tmp_path / "weights").tensors.keys() == tensors_of(code).keys()


def test_a_card_can_bring_a_checkpoint_for_it(
    code: Code, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code.write("own_net")
    mine = tmp_path / "mine"
    mine.mkdir()
    safetensors.torch.save_file(tensors_of(code, "student.backbone."), mine / "weights.safetensors")
    checkpoints = [{"backbones": ["own_net:*"], "path": "weights.safetensors"}]
    (mine / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": checkpoints}))
    monkeypatch.chdir(tmp_path)
    checked = bench("submit", "check", mine, "--backbone", NAME)
    assert checked.code == 0, checked.out
    assert f"{NAME}: 6 of 6 tensors" in checked.out
    path = write_matrix(tmp_path, ("none",), (NAME,), replicates=1)
    assert bench("run", "--matrix", path, "--source", mine, "--executor", "inline").code == 0
    assert (load_table(tmp_path / "store")["status"] == "ok").all()
