"""sam-tiny: a small promptable model of segment_anything's classes, not Meta's SAM. Trained by `python -m bench.sam_tiny`.

Prompt encoder, mask decoder and Sam are segment_anything's, but narrower. The image encoder is an EfficientNet-Lite0, whose five
scales are summed at stride 8. Frames are resized to 384 pixels on the long side; masks have stride 2.
"""

import timm
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 384  # side of the input square, in pixels
STRIDE = 8  # of the embedding; masks have a quarter of it
WIDTH = 64  # channels of the embedding
GREY = 127.5  # mean and standard deviation of the input, as for Lite0's ImageNet weights


class Encoder(nn.Module):
    """(B, 3, 384, 384) -> (B, 64, 48, 48).

    Attributes:
        img_size: required by segment_anything.
    """

    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", features_only=True)
        scales = zip(self.backbone.feature_info.channels(), self.backbone.feature_info.reduction(), strict=True)
        # finer maps are folded into channels without loss
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels * max(1, STRIDE // stride) ** 2, WIDTH, 1) for channels, stride in scales
        )
        self.mixed = nn.Sequential(_mix(), _mix())
        self.norm = LayerNorm2d(WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        """Embed normalised, padded images."""
        total = torch.zeros((), device=image.device)
        for features, lateral in zip(self.backbone(image), self.lateral, strict=True):
            side, cells = features.shape[-1], image.shape[-1] // STRIDE
            if side > cells:
                total = total + lateral(F.pixel_unshuffle(features, side // cells))
            else:
                total = total + F.interpolate(lateral(features), (cells, cells), mode="bilinear")
        for mix in self.mixed:
            total = total + mix(total)
        embedding: Tensor = self.norm(total)
        return embedding


def _mix() -> nn.Module:
    return nn.Sequential(
        LayerNorm2d(WIDTH),
        nn.Conv2d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH),
        nn.Conv2d(WIDTH, 2 * WIDTH, 1),
        nn.GELU(),
        nn.Conv2d(2 * WIDTH, WIDTH, 1),
    )


def build() -> Sam:
    """Build the model with torch's initial weights."""
    cells = SIDE // STRIDE
    return Sam(
        Encoder(),
        PromptEncoder(WIDTH, (cells, cells), (SIDE, SIDE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=4 * WIDTH),
            activation=nn.ReLU,
            iou_head_hidden_dim=WIDTH,
        ),
        pixel_mean=[GREY] * 3,
        pixel_std=[GREY] * 3,
    ).eval()
