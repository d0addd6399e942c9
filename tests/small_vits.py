"""Plain ViTs of every family with four narrow blocks, registered with timm so that tests can name them.

Each is timm's own model of the family with fewer and narrower blocks, so that what makes the family is there: layer scales,
registers, rotary embeddings, a norm before the blocks.
"""

import functools
from collections import deque
from dataclasses import replace

import timm
from timm.models import DefaultCfg, register_model
from torch import nn

from backbones.registry import find_backbone

WIDTH, DEPTH, HEADS = 32, 4, 2
SMALL = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
# our name -> timm's model, side of the image in px for which its position embeddings are made
FAMILIES = {
    "vit_wee_patch16_64": ("vit_small_patch16_224", 64),
    "vit_wee_patch8_64": ("vit_small_patch8_224", 64),
    "deit_wee_distilled_patch16_64": ("deit_tiny_distilled_patch16_224", 64),
    "vit_wee_patch16_clip_64": ("vit_base_patch16_clip_224", 64),
    "vit_wee_patch16_clip_quickgelu_64": ("vit_base_patch16_clip_quickgelu_224", 64),
    "vit_wee_patch14_dinov2": ("vit_small_patch14_dinov2", 70),
    "vit_wee_patch14_reg4_dinov2": ("vit_small_patch14_reg4_dinov2", 70),
    "vit_weegiant_patch14_dinov2": ("vit_giant_patch14_dinov2", 70),
    "vit_weegiant_patch14_reg4_dinov2": ("vit_giant_patch14_reg4_dinov2", 70),
    "vit_wee_patch16_dinov3": ("vit_small_patch16_dinov3", 64),
    "vit_wee_patch16_dinov3_qkvb": ("vit_small_patch16_dinov3_qkvb", 64),
    "vit_wee_plus_patch16_dinov3_qkvb": ("vit_small_plus_patch16_dinov3_qkvb", 64),
}
found = functools.cache(find_backbone)  # each is built and tried once
default_cfgs: dict[str, DefaultCfg] = {}


def _register(name: str, family: str, side: int) -> None:
    make = timm.model_entrypoint(family)

    def build(pretrained: bool = False, **settings: object) -> nn.Module:
        gate = {"mlp_ratio": 5.5} if "giant" in name else {}  # 88 wide, a multiple of 8 as in the original
        return make(pretrained, **{**SMALL, **gate, "img_size": side, **settings})

    build.__name__, build.__module__ = name, __name__
    cfg = replace(timm.get_pretrained_cfg(family), tag=None, url=None, hf_hub_id=None, input_size=(3, side, side))
    default_cfgs[name] = DefaultCfg(tags=deque([""]), cfgs={"": cfg})
    register_model(build)


for _name, (_family, _side) in FAMILIES.items():
    _register(_name, _family, _side)
