"""sam-tiny: a small promptable model in segment_anything's own classes, not Meta's SAM. Trained by `python -m bench.sam_tiny`.

Its prompt encoder, mask decoder and Sam are segment_anything's, narrower; its image encoder is an EfficientNet-Lite0, whose
maps of five scales are added up at stride 8. Frames are brought to 384 pixels on the long side, and masks come out at stride 2.
"""

import timm
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 384  # pixels of the square that frames are brought to
STRIDE = 8  # pixels of it to a cell of the embedding; a mask's is a quarter of that
WIDTH = 64  # channels of the embedding
GREY = 127.5  # mean and standard deviation of the input, as Lite0's ImageNet weights want it


class Encoder(nn.Module):
    """(B, 3, 384, 384) -> (B, 64, 48, 48).

    Attributes:
        img_size: what segment_anything asks an image encoder for.
    """

    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", features_only=True)
        scales = zip(self.backbone.feature_info.channels(), self.backbone.feature_info.reduction(), strict=True)
        # finer maps are folded into channels, so that nothing of them is lost
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels * max(1, STRIDE // stride) ** 2, WIDTH, 1) for channels, stride in scales
        )
        self.mixed = nn.Sequential(_mix(), _mix())
        self.norm = LayerNorm2d(WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        """The embedding of normalised, padded images."""
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
    """The model, with weights as torch initialises them."""
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
