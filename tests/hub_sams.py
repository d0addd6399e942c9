"""Small Segment Anything models as folders of the Hugging Face hub: tiny_sam under transformers' names, and a random SAM 2."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import tiny_sam
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor
from transformers import (
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamConfig,
    SamImageProcessor,
)

# segment_anything's name -> that of transformers' SamModel
RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix", ".shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
)
SIDE_2, DIM_2 = 64, 32  # of the SAM 2: pixels a side, channels
SQUARE_2 = {"height": SIDE_2, "width": SIDE_2}


def frame(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A frame with blobs of warm and cold."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_models(weights: Path) -> Path:
    """Write tiny.pth of segment_anything and the same model as me/sam, and random models as me/sam2 and me/video."""
    write_tiny(weights)
    write_sam2(weights / "me" / "sam2")
    write_sam2_video(weights / "me" / "video")
    return weights


def write_tiny(weights: Path) -> None:
    """Write tiny_sam as tiny.pth and as the folder me/sam of the hub."""
    weights.mkdir(exist_ok=True)
    tiny_sam.write_checkpoint(weights / "tiny.pth")
    model = tiny_sam.build()
    model.load_state_dict(torch.load(weights / "tiny.pth"))
    write_sam(weights / "me" / "sam", model)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of segment_anything's Sam under the names of transformers' SamModel."""
    converted = {}
    for name, tensor in tensors.items():
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        converted[name] = tensor.contiguous().clone()
    position = "shared_embedding.positional_embedding"
    return converted | {f"shared_image_{position.partition('_')[2]}": converted[f"prompt_encoder.{position}"].clone()}


def sam_config(model: Sam) -> SamConfig:
    """The configuration of a Sam whose encoder is an ImageEncoderViT without windows."""
    encoder, prompts, decoder = model.image_encoder, model.prompt_encoder, model.mask_decoder
    side, patch, layer = encoder.img_size, encoder.patch_embed.proj.kernel_size[0], decoder.transformer.layers[0]
    eps = 1e-5  # torch's default, which these models have
    return SamConfig(
        vision_config={
            "hidden_size": encoder.patch_embed.proj.out_channels,
            "output_channels": prompts.embed_dim,
            "num_hidden_layers": len(encoder.blocks),
            "num_attention_heads": encoder.blocks[0].attn.num_heads,
            "image_size": side,
            "patch_size": patch,
            "use_rel_pos": encoder.blocks[0].attn.use_rel_pos,
            "global_attn_indexes": list(range(len(encoder.blocks))),
            "num_pos_feats": prompts.embed_dim // 2,
            "layer_norm_eps": eps,
        },
        prompt_encoder_config={
            "hidden_size": prompts.embed_dim,
            "image_size": side,
            "patch_size": patch,
            "mask_input_channels": prompts.mask_downscaling[3].out_channels,
        },
        mask_decoder_config={
            "hidden_size": decoder.transformer_dim,
            "mlp_dim": layer.mlp.lin1.out_features,
            "num_hidden_layers": len(decoder.transformer.layers),
            "num_attention_heads": layer.self_attn.num_heads,
            "iou_head_hidden_dim": decoder.iou_prediction_head.layers[0].out_features,
            "layer_norm_eps": eps,
        },
    )


def write_sam(folder: Path, model: Sam) -> Path:
    """Write a Sam as a folder of the hub."""
    side = model.image_encoder.img_size
    processor = SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    return _write(folder, sam_config(model), processor, renamed(model.state_dict()))


def write_sam2(folder: Path) -> Path:
    """Write a random SAM 2 as a folder of the hub."""
    return _write(folder, sam2_config(), Sam2ImageProcessor(size=SQUARE_2), _random(Sam2Model, sam2_config()))


def write_sam2_video(folder: Path) -> Path:
    """Write a random SAM 2 for videos, as Meta's are on the hub: one for images, and tensors of its memory."""
    parts = {name: part for name, part in sam2_config().to_dict().items() if name.endswith("_config")}
    for name in ("prompt_encoder_config", "mask_decoder_config"):
        del parts[name]["model_type"]
    sizes = ("memory_attention_hidden_size", "memory_encoder_hidden_size", "mask_downsampler_embed_dim")
    more = ("memory_fuser_embed_dim", "memory_fuser_intermediate_dim", "memory_attention_feed_forward_hidden_size")
    memory = dict.fromkeys((*sizes, *more), DIM_2) | {"memory_encoder_output_channels": 8}
    config = Sam2VideoConfig(**parts, **memory, image_size=SIDE_2, memory_attention_num_layers=1)
    return _write(folder, config, Sam2ImageProcessor(size=SQUARE_2), _random(Sam2VideoModel, config))


@torch.no_grad()
def _random(model_class: Any, config: Any) -> dict[str, Tensor]:
    """Random tensors that keep the size of signals, so that masks and scores differ: those of transformers are near zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def sam2_config() -> Sam2Config:
    """A SAM 2 of five thin blocks."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE_2, SIDE_2],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "window_positional_embedding_background_size": [7, 7],
        "global_attention_blocks": [3],
    }
    return Sam2Config(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": DIM_2,
        },
        prompt_encoder_config={"hidden_size": DIM_2, "image_size": SIDE_2, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": DIM_2, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )


def _write(folder: Path, config: Any, processor: Any, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json_string())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.to_dict()))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
