"""Optional dependencies: which extra installs a module, and what to say where it is missing. Imports none of them."""

import importlib.util
from typing import Literal

Extra = Literal["train", "slurm", "export"]

MODULES: dict[Extra, dict[str, str]] = {  # extra -> module -> the package that installs it
    "train": {
        "torch": "torch",
        "torchvision": "torchvision",
        "timm": "timm",
        "transformers": "transformers",
        "segmentation_models_pytorch": "segmentation-models-pytorch",
        "segment_anything": "segment-anything",
        "safetensors": "safetensors",
        "huggingface_hub": "huggingface-hub",
        "optuna": "optuna",
        "pycocotools": "pycocotools",
        "numba": "numba",
        "cv2": "opencv-python-headless",
        "skimage": "scikit-image",
    },
    "slurm": {"submitit": "submitit"},
    "export": {
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "onnxscript": "onnxscript",
        "torch": "torch",
        "optuna_dashboard": "optuna-dashboard",
    },
}


def require(extra: Extra, *unused: str) -> None:
    """Check that an extra is installed, before worker processes fail one by one. unused: its modules that are not needed.

    Raises:
        ModuleNotFoundError: one of its modules is missing.
    """
    for module in MODULES[extra]:
        if module not in unused and importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def advice(error: ModuleNotFoundError) -> str | None:
    """Return what to install where the missing module is an optional one, else None."""
    module = (error.name or "").split(".")[0]
    for extra, modules in MODULES.items():
        if module in modules:
            return f"this command needs {modules[module]}; install it with: pip install 'satir-bench[{extra}]'"
    return None
