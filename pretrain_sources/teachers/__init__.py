"""Teachers: what proposes masks on one image. A teacher is a callable from an image to masks."""

import hashlib
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.recipe import FelzenszwalbTeacher, PythonTeacher, SamTeacher


@dataclass(frozen=True)
class Masks:
    """What a teacher draws on one image of (H, W). N masks in the teacher's own order, which breaks ties of rank.

    Attributes:
        masks: (N, H, W) bool. predicted_iou: (N,) in [0, 1], the teacher's own opinion of a mask. stability: (N,) in [0, 1],
            how little a mask changes with the teacher's threshold. prompts: (N,) what asked for it: (x, y), a box
            (x0, y0, x1, y1), or () in pixels.
    """

    masks: NDArray[np.bool_]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    prompts: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.masks)
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise ValueError(f"masks must be (N, H, W) bool, not {self.masks.shape} {self.masks.dtype}")
        for name in ("predicted_iou", "stability", "prompts"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} masks but {len(getattr(self, name))} values of {name}")
        if not (np.isfinite(self.predicted_iou).all() and np.isfinite(self.stability).all()):
            raise ValueError("predicted_iou and stability must be finite")


# Raise a teacher's number by hand when its code, or the decoding of images, changes what it draws: kept masks are asked for anew.
VERSIONS = {"sam": 1, "felzenszwalb": 1, "python": 1}

Function = TypeVar("Function", bound=Callable[..., Any])
Teacher = Callable[[NDArray[np.uint8]], Masks]  # thermal image (H, W) -> masks
Settings = SamTeacher | FelzenszwalbTeacher | PythonTeacher


@dataclass(frozen=True)
class Obstacle:
    """Why a teacher cannot be had here and now, and what to do."""

    reason: str
    mend: str


class TeacherError(Exception):
    """A teacher cannot be opened; the message says why and what to do."""


class UnsuitableError(Exception):
    """A teacher cannot be asked about this one image; the message says why. The others go on."""


def identity(settings: Settings, weights: Path) -> dict[str, Any]:
    """What shapes the masks: the settings, with the checkpoint's content in place of its path. `weights`: the user's folder."""
    version = {"teacher_version": VERSIONS[settings.kind]}
    if isinstance(settings, SamTeacher):
        from pretrain_sources.teachers import checkpoints

        # points_per_batch bounds the memory and changes no mask
        kept = settings.model_dump(mode="json", exclude={"checkpoint", "sha256", "points_per_batch"})
        return kept | version | {"sha256": checkpoints.expected_sha256(settings, weights)}
    return settings.model_dump(mode="json") | version


def obstacle(settings: Settings, weights: Path) -> Obstacle | None:
    """What stands in the way of opening this teacher, or None. Loads no torch."""
    if isinstance(settings, SamTeacher):
        from pretrain_sources.teachers import checkpoints

        return checkpoints.obstacle(settings, weights)
    return None


def open_teacher(settings: Settings, weights: Path) -> Teacher:
    """The teacher, ready to be asked.

    Raises:
        TeacherError: its checkpoint or its entry point cannot be used.
    """
    if isinstance(settings, PythonTeacher):
        with told_as_its_own(settings, "could not be opened"):
            made = entry_point(settings.entry)(**settings.settings)
        if not callable(made):
            raise TeacherError(
                f"{settings.entry} returned {type(made).__name__}, which is no teacher: it must be callable"
            )
        return _checked(made, settings.entry)
    module = importlib.import_module(f"pretrain_sources.teachers.{settings.kind}")
    teacher: Teacher = module.open_teacher(settings, weights)
    return teacher


def offered(function: Function) -> Function:
    """Marks a function that a card may name as `module:function`: a card from a stranger can call no other."""
    function.offered_to_cards = True  # type: ignore[attr-defined]
    return function


def entry_point(name: str) -> Callable[..., Any]:
    """The function that `module:function` names, of an installed module, where it is marked as `offered`.

    Raises:
        TeacherError: there is none.
    """
    module, function = name.split(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise TeacherError(f"no function {name}: {error}; the module must be installed or on PYTHONPATH") from error
    if getattr(found, "offered_to_cards", None) is not True:
        raise TeacherError(f"{name} is not offered to cards: put @pretrain_sources.teachers.offered above it")
    return found  # type: ignore[no-any-return]


def own(entry: str) -> PythonTeacher:
    """A user's own teacher, `module:function`, with a version that changes with the module's source.

    Raises:
        TeacherError: there is none.
    """
    source = inspect.getsource(importlib.import_module(entry_point(entry).__module__))
    return PythonTeacher(entry=entry, version=f"source {hashlib.sha256(source.encode()).hexdigest()[:12]}")


@contextmanager
def told_as_its_own(settings: Settings, what: str) -> Iterator[None]:
    """A mistake in a user's own teacher becomes a TeacherError that names its line; the program's own stay as they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, TeacherError | UnsuitableError) or not isinstance(settings, PythonTeacher):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise TeacherError(
            f"{settings.entry} {what}: {type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        ) from error


def _checked(teacher: Teacher, name: str) -> Teacher:
    def ask(image: NDArray[np.uint8]) -> Masks:
        masks = teacher(image)
        if not isinstance(masks, Masks):
            raise TeacherError(
                f"{name} returned {type(masks).__name__}; a teacher returns pretrain_sources.teachers.Masks"
            )
        return masks

    return ask
