"""A Segment Anything small enough for tests: the package's classes with constructed instead of trained weights.

Tokens and image attend to each other by distance, so a prompt marks its surroundings; a linear fit on one synthetic image
turns that into blobs of three sizes that follow brightness a little, and spreads the predicted IoUs. It cannot segment, but
each filter of the automatic generator keeps some of the masks and drops some.
"""

import math
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F

from pretrain_sources.teachers import offered

ENTRY = "tiny_sam:build"
THRESHOLDS = {"pred_iou_thresh": 0.65, "stability_score_thresh": 0.75}  # each keeps some masks and drops some
SIDE, CELLS, DIM = 256, 16, 64  # pixels and cells a side, channels
WHERE = [i + half for i in range(DIM // 4) for half in (0, DIM // 2)]  # channels: sines and cosines of the position
SHARPNESS = 2.5
AWAY = 1.5
ASKED = DIM // 4  # the channel that distinguishes a prompt from other tokens
RADII = (0.1, 0.05, 0.08, 0.12)  # of the blobs of the decoder's masks, as shares of the side; the first is the boxes'
POINTS = 64
PEAK = 14  # logit in the middle of a blob


@offered
def build() -> Sam:
    """Build the model with torch's initial weights."""
    encoder = ImageEncoderViT(
        img_size=SIDE, patch_size=SIDE // CELLS, embed_dim=48, depth=1, num_heads=4, out_chans=DIM, use_rel_pos=True
    )
    prompts = PromptEncoder(DIM, (CELLS, CELLS), (SIDE, SIDE), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=2, mlp_dim=64)
    decoder = MaskDecoder(transformer_dim=DIM, transformer=transformer, iou_head_hidden_dim=32)
    return Sam(encoder, prompts, decoder).eval()


@offered
def build_least() -> Sam:
    """Build the smallest model of the package's classes, fast enough for thousands of calls."""
    encoder = ImageEncoderViT(img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, out_chans=32)
    transformer = TwoWayTransformer(depth=1, embedding_dim=32, num_heads=2, mlp_dim=16)
    decoder = MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=8)
    return Sam(encoder, PromptEncoder(32, (4, 4), (64, 64), mask_in_chans=4), decoder).eval()


@torch.no_grad()
def write_least(path: Path) -> None:
    """Save random weights that predict a high IoU for the mask of a box and the first of a point."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_least()
        model.mask_decoder.iou_prediction_head.layers[-1].bias.copy_(torch.tensor([0.99, 0.97, 0.2, 0.1]))
        model.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(0.05)
    torch.save(model.state_dict(), path)


@torch.no_grad()
def write_checkpoint(path: Path) -> None:
    """Construct the weights deterministically and save them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        _attend_to_what_is_near(model)
        _draw_blobs(model)
    torch.save(model.state_dict(), path)


def _attend_to_what_is_near(model: Sam) -> None:
    """Use half of the channels for positions and the others for content: image cells attend to the prompt near them."""
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    prompts.pe_layer.positional_encoding_gaussian_matrix.mul_(0.5)[:, DIM // 4 :] = 0
    tokens = [*prompts.point_embeddings, prompts.not_a_point_embed, decoder.iou_token, decoder.mask_tokens]
    for token in tokens:
        token.weight[:, [*WHERE, ASKED]] = 0
    for token in prompts.point_embeddings:
        token.weight[:, ASKED] = 8
    prompts.no_mask_embed.weight.zero_()
    own = decoder.transformer.layers[0].self_attn  # replaces the tokens: by themselves
    for projection, gain in ((own.q_proj, 2), (own.k_proj, 2), (own.v_proj, 1), (own.out_proj, 1)):
        torch.nn.init.eye_(projection.weight).mul_(gain)
    model.image_encoder.neck[3].weight[[*WHERE, ASKED]] = 0
    for layer in decoder.transformer.layers:
        layer.norm4.weight[WHERE] = 0
        layer.cross_attn_token_to_image.out_proj.weight.mul_(0.2)
        layer.mlp.lin2.weight.mul_(0.2)
        asking = layer.cross_attn_image_to_token
        for projection in (asking.q_proj, asking.k_proj):
            projection.bias.zero_()
            projection.weight.zero_()[range(len(WHERE)), WHERE] = SHARPNESS
        for head in (0, len(WHERE) // 2):  # a cell without a prompt nearby attends to the other tokens
            asking.q_proj.weight[head] = 0
            asking.q_proj.bias[head] = 1
            asking.k_proj.weight[head] = 0
            asking.k_proj.weight[head, ASKED] = -AWAY
        asking.v_proj.weight.zero_()[:, ASKED] = 1
        asking.out_proj.weight.zero_()[ASKED] = 2 / DIM
    upscaling = decoder.output_upscaling
    for convolution in (upscaling[0], upscaling[3]):
        convolution.weight.copy_(convolution.weight.mean((2, 3), keepdim=True) * 2)  # no checkerboard within a cell
    upscaling[0].weight[ASKED] = 0
    upscaling[0].weight[ASKED, :2] = 1
    upscaling[3].weight[0] += 0.5
    upscaling[3].weight[:, 0] = 0
    upscaling[3].bias[0] = 1  # a constant


def _draw_blobs(model: Sam) -> None:
    """Fit the last layers: of the masks by least squares, of the predicted IoUs to a mean and a spread."""
    image = F.interpolate(torch.rand(1, 1, 6, 6), (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    points = SIDE * torch.rand(POINTS, 2)
    sparse, dense = model.prompt_encoder((points[:, None], torch.ones(POINTS, 1)), None, None)
    decoder, seen = model.mask_decoder, []
    hook = decoder.output_upscaling.register_forward_hook(lambda module, given, made: seen.append(made))
    features = model.image_encoder(model.preprocess(255 * image.expand(1, 3, SIDE, SIDE)))
    _, iou = decoder(features, model.prompt_encoder.get_dense_pe(), sparse, dense, True)
    hook.remove()
    wanted = _blobs(image, points).flatten(2)  # (POINTS, masks, pixels)
    given = seen[0].flatten(2).transpose(1, 2).flatten(0, 1)  # (POINTS * pixels, channels)
    fitted = torch.linalg.lstsq(given, wanted.transpose(1, 2).flatten(0, 1)).solution
    drawn = given @ fitted
    for mask, radius in enumerate(RADII):
        level, top = torch.quantile(drawn[::7, mask], torch.tensor([1 - math.pi * radius**2, 0.9995]))
        values = fitted[:, mask]
        values[0] -= level / given[0, 0]  # above 0 lies a blob's share of the pixels
        values *= PEAK / (top - level)
        network = decoder.output_hypernetworks_mlps[mask].layers[-1]
        network.weight.mul_(0.1)
        network.bias.copy_(values)
    last = decoder.iou_prediction_head.layers[-1]
    spread = 0.04 / iou.std(0).mean()
    last.weight.mul_(spread)
    last.bias.sub_(torch.cat([iou.mean()[None], iou.mean(0)])).mul_(spread).add_(0.72)


def _blobs(image: Tensor, points: Tensor) -> Tensor:
    """Return target logits (POINTS, masks, h, w): positive near the point, more so where it is bright."""
    side = 4 * CELLS
    axis = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = torch.hypot(x - points[:, 0, None, None] / SIDE, y - points[:, 1, None, None] / SIDE)
    bright = F.interpolate(image, (side, side), mode="area")[0] - image.mean()
    near = torch.stack([1 - distance / radius for radius in RADII], dim=1).clamp(-1, 1)
    return 12 * near + 4 * bright
