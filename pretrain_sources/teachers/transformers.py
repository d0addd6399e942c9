"""SAM and SAM 2 through the transformers package as teachers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, SamConfig, SamImageProcessor, SamModel
from transformers.utils import logging

from pretrain_sources.recipe import TransformersTeacher
from pretrain_sources.teachers import transformers_weights
from pretrain_sources.teachers.contract import Teacher, TeacherError
from pretrain_sources.teachers.mask_generator import MaskGenerator
from pretrain_sources.teachers.sam_weights import load_tensors, refuse_misfits
from pretrain_sources.teachers.transformers_weights import ModelFiles

CLASSES = {
    "sam": (SamModel, SamConfig, SamImageProcessor),
    "sam2": (Sam2Model, Sam2Config, Sam2ImageProcessor),
}
# keys of a configuration that name other code or files
FOREIGN = re.compile("auto_map|transformers_weights|quantization_config|.*_implementation.*")


def open_teacher(settings: TransformersTeacher, weights: Path, device: str = "cpu") -> Teacher:
    """Open the teacher with its checkpoint. weights: the user's folder. device: cpu, or cuda, where it computes in fp16.

    Raises:
        TeacherError: the model is not available, cannot be read, is of another architecture, or lacks tensors.
    """
    files = transformers_weights.find_or_fetch(settings, weights)
    model, processor = _load(settings, files)
    model.to(device)
    if device == "cuda":  # the prompt encoder needs full precision for positions
        model.get_image_embeddings = torch.autocast("cuda", torch.float16)(model.get_image_embeddings)
        model.mask_decoder.forward = torch.autocast("cuda", torch.float16)(model.mask_decoder.forward)
    predictor = _SamPredictor if settings.architecture == "sam" else _Sam2Predictor
    return MaskGenerator(predictor(model, processor, files.tensors.parent), settings).masks


def _load(settings: TransformersTeacher, files: ModelFiles) -> tuple[Any, Any]:
    """Return model and image processor. transformers would only warn of tensors that do not fit, and draw random ones."""
    model_class, config_class, processor_class = CLASSES[settings.architecture]
    given = load_tensors(files.tensors)
    try:
        with _quiet(), torch.device("meta"):  # without values
            config = config_class.from_dict(_plain(files.config))
            own = model_class(config).state_dict()
        processor = processor_class.from_dict(files.processor)
    except Exception as error:  # a configuration can fail in many ways
        why = " ".join(str(error).split())[:300]
        raise TeacherError(
            f"{files.tensors.parent}: transformers cannot build a {model_class.__name__} from its configuration: {why}; "
            "download it again"
        ) from error
    misfits = {
        "of another shape": {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape},
        "not finite": {name for name, tensor in given.items() if not bool(tensor.isfinite().all())},
    }
    if any(misfits.values()):
        misfits |= {"missing": own.keys() - given.keys(), "unknown": given.keys() - own.keys()}
    _refuse(files, model_class, misfits)
    with _quiet():
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=given,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    # tied tensors may be missing, and those for videos unknown
    _refuse(files, model_class, {"missing": report["missing_keys"], "unknown": report["unexpected_keys"]})
    return model, processor


def _plain(settings: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a configuration without keys by which it could name other code or files, at any depth."""
    if isinstance(settings, dict):
        return {key: _plain(value) for key, value in settings.items() if not FOREIGN.fullmatch(key)}
    return [_plain(value) for value in settings] if isinstance(settings, list) else settings


def _refuse(files: ModelFiles, model_class: type, misfits: Mapping[str, Iterable[str]]) -> None:
    fix = "it is of another model, or damaged: correct `model` or `architecture`, or download it again"
    refuse_misfits(files.tensors, model_class.__name__, misfits, fix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report of tensors that do not fit, and its progress bar."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


class _HubPredictor:
    """What the predictors of transformers' models share; see the Predictor of the generator."""

    mask_threshold = 0.0

    def __init__(self, model: Any, processor: Any) -> None:  # noqa: ANN401
        self.model, self.processor = model, processor
        self.reset_image()

    def reset_image(self) -> None:
        self._embedding: Any = None
        self._scale = np.ones(2)  # of (x, y), from the image to the model's square

    def decode(self, prompts: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        corners = torch.as_tensor(prompts * self._scale, dtype=torch.float32, device=self.model.device)[None]
        is_point = bool(corners.isnan().any())
        given = {"input_points": corners[:, :, :1]} if is_point else {"input_boxes": corners.flatten(2)}
        made = self.model(image_embeddings=self._embedding, multimask_output=is_point, **given)
        return made.pred_masks[0], made.iou_scores[0]

    def _embed(self, image: NDArray[np.uint8]) -> Any:  # noqa: ANN401
        """Embed an image (H, W, 3); return what the processor says besides its pixels."""
        made = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")
        self._embedding = self.model.get_image_embeddings(made.pop("pixel_values").to(self.model.device))
        return made


class _SamPredictor(_HubPredictor):
    """SAM: the image keeps its proportions, and the rest of the square is padding."""

    def __init__(self, model: Any, processor: Any, folder: Path) -> None:  # noqa: ANN401
        super().__init__(model, processor)
        side, pad = model.config.vision_config.image_size, processor.pad_size
        _check_side(folder, side, processor.size.longest_edge, pad.height, pad.width)
        self.square = side

    def fits(self, height: int, width: int) -> bool:
        return bool(min(ResizeLongestSide.get_preprocess_shape(height, width, self.square)) >= 1)

    def set_image(self, image: NDArray[np.uint8]) -> None:
        height, width = self._embed(image)["reshaped_input_sizes"][0].tolist()
        self.input_size = height, width
        self._scale = np.array([width / image.shape[1], height / image.shape[0]])


class _Sam2Predictor(_HubPredictor):
    """SAM 2: the image is stretched to the square, and masks are resized from the decoder's resolution to the image at once."""

    def __init__(self, model: Any, processor: Any, folder: Path) -> None:  # noqa: ANN401
        super().__init__(model, processor)
        self._side = model.config.prompt_encoder_config.image_size
        _check_side(folder, self._side, processor.size.height, processor.size.width)
        self.square, _ = self.input_size = model.prompt_encoder.mask_input_size

    def fits(self, height: int, width: int) -> bool:
        return True

    def set_image(self, image: NDArray[np.uint8]) -> None:
        self._embed(image)
        self._scale = self._side / np.array(image.shape[1::-1], np.float64)


def _check_side(folder: Path, side: object, *of_processor: object) -> None:
    """Refuse an image processor that does not make the square that the model takes.

    Raises:
        TeacherError: its sides differ from the model's.
    """
    if not isinstance(side, int) or any(one != side for one in of_processor):
        raise TeacherError(
            f"{folder}: {transformers_weights.PROCESSOR} makes images of {of_processor} pixels, the model takes {side}: "
            "fetch both files from the same revision"
        )
