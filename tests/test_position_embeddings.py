"""Position embeddings of a checkpoint on another grid are resampled, those of no square grid refused, and both recorded."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_vits import WIDTH, found
from test_layouts import Tensors, same, stirred

from backbones import imagenet
from backbones.checkpoint_file import CheckpointError
from backbones.encoder_layouts import encoder_of
from backbones.fitting import fit
from backbones.network import build
from backbones.spec import HALF, BackboneSpec
from backbones.transfer import Certificate, EncoderWeights, LoadError, load_encoder

DINOV2 = "vit_wee_patch14_dinov2"  # of 5 x 5 patches
RESAMPLED = "position embeddings resampled from 3 x 3 to 5 x 5"
DYNAMIC = "position embeddings of 5 x 5 are resampled to each image"


def whole(name: str = DINOV2, side: int = 70) -> Tensors:
    torch.manual_seed(1)
    return dict(stirred(timm.create_model(name, num_classes=0, img_size=side)).state_dict())


def load(tensors: Tensors, spec: BackboneSpec) -> Certificate:
    fitted = fit(tensors, spec)
    torch.manual_seed(0)
    weights = EncoderWeights(fitted.tensors, HALF, HALF, "test", fitted.notes)
    return load_encoder(build(spec, 2), weights, torch.rand(1, 1, 50, 75), ["probe"])


@pytest.mark.parametrize("decoder", ["upernet", "fpn"])
@pytest.mark.parametrize("name", [DINOV2, "vit_wee_patch14_reg4_dinov2"])
def test_another_grid_is_resampled_as_timm_does_it_and_recorded(name: str, decoder: str) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    tensors, spec = whole(name, 42), found(f"{decoder}:{name}")
    by_timm = checkpoint_filter_fn(dict(tensors), timm.create_model(name, num_classes=0))
    fitted = fit(tensors, spec)
    assert same(fitted.tensors, {own: by_timm[own.removeprefix("model.")] for own in encoder_of(spec).tensors})
    assert not torch.equal(fitted.tensors["model.pos_embed"], whole(name)["pos_embed"])
    certificate = load(tensors, spec)
    assert certificate.passed
    assert certificate.reading[1:3] == (RESAMPLED, DYNAMIC)


def test_the_own_grid_stays_as_it_is() -> None:
    fitted = fit(whole(), found(f"upernet:{DINOV2}"))
    assert torch.equal(fitted.tensors["model.pos_embed"], whole()["pos_embed"])
    assert [note for note in fitted.notes if note.startswith("position")] == [DYNAMIC]


def test_a_vit_under_dpt_is_read_alike() -> None:
    fitted = fit(whole("vit_wee_patch16_64", 96), found("dpt:vit_wee_patch16_64"))
    assert "position embeddings resampled from 6 x 6 to 4 x 4" in fitted.notes
    assert "position embeddings of 4 x 4 are resampled to each image" in fitted.notes


@pytest.mark.parametrize("name", ["upernet:vit_wee_patch16_dinov3", "upernet:convnext_atto"])
def test_encoders_without_position_embeddings_say_nothing_of_them(name: str) -> None:
    spec = found(name)
    assert not any("position" in note for note in fit(dict(timm.create_model(spec.encoder).state_dict()), spec).notes)


@pytest.mark.parametrize(
    ("rows", "width"), [(8, WIDTH), (1 + 8, WIDTH), (9, WIDTH), (1 + 9, 2 * WIDTH)], ids=["8", "1 + 8", "9", "wider"]
)
def test_no_square_grid_with_a_class_token_is_refused(rows: int, width: int) -> None:
    tensors = whole() | {"pos_embed": torch.randn(1, rows, width)}
    with pytest.raises(
        LoadError, match=rf"model.pos_embed has shape \(1, {rows}, {width}\), the encoder's has \(1, 26"
    ):
        load(tensors, found(f"upernet:{DINOV2}"))


@pytest.mark.parametrize("victim", ["cls_token", "patch_embed.proj.weight", "blocks.1.attn.qkv.weight"])
def test_no_other_tensor_is_resampled(victim: str) -> None:
    tensors = whole()
    tensors[victim] = torch.cat([tensors[victim], tensors[victim]], 1)
    with pytest.raises(LoadError, match=f"{victim} has shape"):
        load(tensors, found(f"upernet:{DINOV2}"))


@pytest.mark.parametrize("change", ["depth", "width"])
def test_a_larger_sibling_on_another_grid_is_refused(change: str) -> None:
    larger = {"depth": 6} if change == "depth" else {"embed_dim": 2 * WIDTH}
    tensors = dict(stirred(timm.create_model(DINOV2, num_classes=0, img_size=42, **larger)).state_dict())
    says = {"depth": r"larger sibling: 28 tensors .* blocks\.4", "width": "has shape"}[change]
    with pytest.raises((CheckpointError, LoadError), match=says):
        load(tensors, found(f"fpn:{DINOV2}"))


def hub_folder(folder: Path, tensors: Tensors, **model_args: object) -> None:
    """Write a folder in the hub's format as timm does."""
    cfg = timm.create_model(DINOV2).pretrained_cfg | {"mean": [0.1, 0.1, 0.1], "std": [0.2, 0.2, 0.2]}
    (folder / DINOV2).mkdir()
    save_file(tensors, folder / DINOV2 / "model.safetensors", metadata={"format": "pt"})
    config = {"architecture": DINOV2, "pretrained_cfg": cfg, "model_args": model_args}
    (folder / DINOV2 / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("said", [True, False], ids=["config.json says it", "config.json does not say it"])
def test_a_folder_with_another_grid_is_resampled_and_recorded(said: bool, tmp_path: Path) -> None:
    """timm itself resamples the second, without a word."""
    tensors, spec = whole(side=42), found(f"upernet:{DINOV2}")
    hub_folder(tmp_path, tensors, **({"img_size": 42} if said else {}))
    origin = imagenet.locate(spec, tmp_path)
    assert origin is not None
    weights = imagenet.fetch(spec, origin, tmp_path)
    assert weights.reading == (RESAMPLED, DYNAMIC)
    assert same(weights.tensors, fit(tensors, spec).tensors)
    assert load_encoder(build(spec, 2), weights, torch.rand(1, 1, 64, 64), ["probe"]).reading == (RESAMPLED, DYNAMIC)
