"""`bench export --onnx`: onnxruntime finds the classes that torch finds, at any size."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm.layers.padding
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from conftest import Bench
from kept_runs import SETTINGS, fault, frames_of, keep, network_of, runs_of, target_of

from backbones import network
from backbones.registry import find_backbone
from bench import BenchError
from bench.cli import extras
from bench.cli.app import cli
from bench.export import exportable, onnx_file
from bench.export.onnx_file import LEAST, agreement, made_images, to_onnx, write_onnx
from bench.shipped import load_protocol
from bench.targets.frames import decode_image
from bench.train.kept import About, load_network
from results.evidence_files import read_evidence
from results.store import Store

DECODERS = (  # of each decoder one, and of each kind of encoder
    *("fpn-efficientnet-lite0", "unet-resnet34", "segformer-b0", "upernet-convnext-tiny", "deeplabv3plus-resnet50"),
    *("dpt-vit-small", "upernet-swin-tiny", "upernet:vit_tiny_patch16_224", "fpn:vit_tiny_patch16_224"),
)


@pytest.fixture(scope="module")
def store(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One run with sizes, windows and a class map of its own; read only."""
    return keep(tmp_path_factory.mktemp("kept"), scenes, "--keep-weights", replicates=1, **SETTINGS)


@pytest.fixture(scope="module")
def called(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The ONNX file of the run, and what the command said: an export takes some seconds."""
    path = tmp_path_factory.mktemp("exported") / "new" / "network.onnx"
    words = ["export", "none x tiny", "--onnx", str(path), "--store", str(store.root)]
    return path, CliRunner().invoke(cli, words, standalone_mode=False)


@pytest.fixture
def exported(called: tuple[Path, Result]) -> Path:
    """The ONNX file of the run."""
    return called[0]


def test_the_command_says_what_it_wrote(called: tuple[Path, Result]) -> None:
    path, done = called
    assert done.exception is None
    assert done.stderr == "exporting none x tiny r0: up to some minutes\n"
    assert done.stdout == (
        f"{path}: none x tiny r0, 3 classes of scenes, {path.stat().st_size / 1e6:.1f} MB; onnxruntime and torch agree "
        "on 100.000% of the pixels of made-up images\n"
    )


def test_onnxruntime_finds_the_classes_of_torch_on_test_images(store: Store, exported: Path, scenes: Path) -> None:
    record = runs_of(store)[0]
    target, about = target_of(scenes, record), About.of(record, None)
    frames = frames_of(target, read_evidence(store, record).image_ids.tolist())
    images = [decode_image(frame.image.read_bytes(), target.coding)[None, None] for frame in frames]
    images += [images[0][..., :51, :77].copy(), np.concatenate(images[:2])]  # another size, and two at once
    images.append(np.tile(images[0], (1, 1, 6, 6))[..., :512, :640].copy())  # the size of real frames
    assert agreement(load_network(network_of(store), about), exported.read_bytes(), images) >= LEAST


def test_the_file_takes_grey_values_of_any_size(store: Store, exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported))
    [image], outputs = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["images", 1, "height", "width"])
    assert [(one.name, one.type, one.shape) for one in outputs] == [
        ("logits", "tensor(float)", ["images", 3, "height", "width"]),
        ("labels", "tensor(uint8)", ["images", "height", "width"]),
    ]
    some = made_images()[1]
    logits, labels = session.run(None, {"image": some})
    assert (logits.argmax(1) == labels).all()
    with torch.inference_mode():  # the normalisation is inside: the network takes grey values in 0..1
        expected = load_network(network_of(store), About.of(runs_of(store)[0], None))(torch.from_numpy(some) / 255)
    assert logits == pytest.approx(expected.numpy(), abs=1e-4)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(store: Store, exported: Path) -> None:
    data = exported.read_bytes()
    about = {one.key: one.value for one in onnx.load_from_string(data).metadata_props}
    assert about["run"] == runs_of(store)[0].run
    assert json.loads(about["classes"]) == ["rest", "room", "street"]
    assert [json.loads(about[name]) for name in ("image_px", "window_px", "stride_px")] == [
        [104, 136],
        [64, 80],
        [40, 60],
    ]
    for place in (sys.prefix, str(Path(__file__).parents[1]), "site-packages"):
        assert place.encode() not in data, place


def test_files_that_cannot_be_written(store: Store, tmp_path: Path, bench: Bench) -> None:
    def why(path: Path) -> str:
        return fault(bench, "export", "none x tiny", "--onnx", path, "--store", store.root)

    (tmp_path / "file").touch()
    assert f"--onnx {tmp_path} is a folder: name a file, such as {tmp_path / 'network.onnx'}" in why(tmp_path)
    assert "cannot be written: File exists; choose another file" in why(tmp_path / "file" / "network.onnx")
    assert "cannot be written: No such file or directory; choose another file" in why(Path("/proc/network.onnx"))


def test_calls_that_say_too_little_or_too_much(store: Store, tmp_path: Path, bench: Bench) -> None:
    onnx_words, optuna_words = ("--onnx", tmp_path / "n.onnx"), ("--optuna", f"sqlite:///{tmp_path / 's.db'}")
    for words in ((), (*onnx_words, *optuna_words)):
        assert "give either --onnx FILE" in fault(bench, "export", "none x tiny", *words)
    assert "--onnx needs a run or a network" in fault(bench, "export", *onnx_words)


def test_a_missing_package_names_the_extra(
    store: Store, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    words = ("export", "none x tiny", "--onnx", tmp_path / "network.onnx", "--store", store.root)
    expected = "bench: this command needs onnxscript; install it with: pip install 'satir-bench[export]'\n"
    assert fault(bench, *words) == expected


def test_a_file_that_disagrees_is_not_kept(
    store: Store, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = About.of(runs_of(store)[0], None)
    net = load_network(network_of(store), about)
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *_: exported.read_bytes())
    with torch.no_grad():
        for parameter in net.decoder.parameters():
            parameter.neg_()
    with pytest.raises(BenchError, match=r"was not written: onnxruntime finds another class than torch on \d"):
        write_onnx(net, about, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_torch_cannot_follow_says_so_in_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    about = About.of(runs_of(store)[0], None)
    net = load_network(network_of(store), about)

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        return [images] * int(images.sum())

    monkeypatch.setattr(net.encoder, "forward", forward)
    with pytest.raises(BenchError, match=r"^torch cannot export the backbone tiny to ONNX: .+$") as error:
        to_onnx(net, about)
    assert "\n" not in str(error.value)


# -- operations in an exportable form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 6, (2, None), (None, 3), (1, 4)])
@pytest.mark.parametrize("shape", [(2, 3, 7, 10), (1, 1, 3, 3), (1, 2, 12, 6)])
def test_average_pooling_is_that_of_torch(size: exportable.Pooled, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(images, size)
    torch.testing.assert_close(exportable.average_pool(images, size), expected)


def test_padding_is_that_of_timm() -> None:
    for side in range(1, 40):
        for settings in ((1, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2), (7, 4, 3)):
            expected = timm.layers.padding.get_same_padding(side, *settings)
            assert exportable.same_padding(side, *settings) == expected


def test_the_originals_are_back_afterwards() -> None:
    before = F.adaptive_avg_pool2d, timm.layers.padding.get_same_padding
    with contextlib.suppress(KeyError), exportable.operations():
        assert F.adaptive_avg_pool2d is exportable.average_pool
        raise KeyError
    assert before == (F.adaptive_avg_pool2d, timm.layers.padding.get_same_padding)


@pytest.mark.stress
@pytest.mark.parametrize("name", DECODERS)
def test_networks_of_each_kind_can_be_exported(name: str) -> None:
    torch.manual_seed(0)
    net = network.build(find_backbone(name), 5).eval()
    fields = {"run": "0" * 64, "source": "none", "backbone": name, "replicate": 0, "target": "made"}
    classes = ("background", *"abcd")
    protocol = load_protocol("hit-uav-v2")
    about = About(**fields, classes=classes, protocol=protocol, images=None, network_sha256=None)  # type: ignore[arg-type]
    data = to_onnx(net, about)
    rng = np.random.default_rng(1)
    others = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((1, 1, 224, 224), (1, 1, 33, 47))]
    assert agreement(net, data, [*made_images(), *others]) >= LEAST
