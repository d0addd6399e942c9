"""Teachers propose masks on an image. A teacher is a callable from an image to masks.

The teacher `coco` is none: its masks are ready-made and belong to named images. `ready_masks` reads them.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain_sources.recipe import CocoTeacher, PromptedTeacher, PythonTeacher, SamTeacher, TransformersTeacher
from pretrain_sources.teachers.contract import Drawing, Masks, Settings, Teacher, TeacherError, UnsuitableError
from pretrain_sources.teachers.user_code import (
    call_entry,
    checked,
    entry_obstacle,
    entry_point,
    named_code,
    offered,
    own,
    told_as_its_own,
)

__all__ = [
    "VERSIONS",
    "Drawing",
    "Masks",
    "Settings",
    "Teacher",
    "TeacherError",
    "UnsuitableError",
    "device_used",
    "entry_point",
    "identity",
    "obstacle",
    "offered",
    "open_teacher",
    "own",
    "pinned",
    "told_as_its_own",
]

# Raise a teacher's number by hand when its code or the decoding of images changes its masks: cached masks are then redrawn.
VERSIONS = {"sam": 1, "transformers": 1, "felzenszwalb": 1, "python": 1, "coco": 1}


def identity(settings: Settings, weights: Path, hashes: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Return what affects the masks: the settings, with the checkpoint's hash instead of its path. `weights`: user's folder.

    hashes: of the files of a teacher `transformers`, if recorded; then neither files nor the hub are asked.

    Raises:
        TeacherError: a file of its own is missing; what is missing of ready-made masks or the hub has the sha256 None.
    """
    version = {"teacher_version": VERSIONS[settings.kind]}
    if isinstance(settings, SamTeacher):
        from pretrain_sources.teachers import sam_weights

        # points_per_batch limits the memory and changes no mask
        kept = settings.model_dump(mode="json", exclude={"checkpoint", "sha256", "points_per_batch"})
        return kept | version | {"sha256": sam_weights.expected_sha256(settings, weights)}
    if isinstance(settings, TransformersTeacher):
        from pretrain_sources.teachers import transformers_weights

        kept = settings.model_dump(mode="json", exclude={*transformers_weights.HASHES, "points_per_batch"})
        return kept | version | (transformers_weights.hashes(settings, weights) if hashes is None else dict(hashes))
    if isinstance(settings, CocoTeacher):
        from pretrain_sources.teachers import ready_masks

        oracle = {"oracle": True} if settings.oracle else {}
        return {"kind": "coco", "sha256": ready_masks.expected_sha256(settings, weights)} | oracle | version
    return settings.model_dump(mode="json") | version


def pinned(settings: Settings, known: Mapping[str, Any]) -> Settings:
    """Return the settings with the hashes of an identity: a teacher with other files is refused when it is opened."""
    from pretrain_sources.teachers.transformers_weights import HASHES

    if not isinstance(settings, PromptedTeacher | CocoTeacher):
        return settings
    return settings.model_copy(update={name: known[name] for name in HASHES if name in known})


def obstacle(settings: Settings, weights: Path) -> str | None:
    """Return why this teacher cannot be opened and what to do, or None. Does not import torch."""
    if (entry := named_code(settings)) and (stop := entry_obstacle(entry)):
        return stop
    if isinstance(settings, SamTeacher):
        from pretrain_sources.teachers import sam_weights

        return sam_weights.obstacle(settings, weights)
    if isinstance(settings, TransformersTeacher):
        from pretrain_sources.teachers import transformers_weights

        return transformers_weights.obstacle(settings, weights)
    if isinstance(settings, CocoTeacher):
        from pretrain_sources.teachers import ready_masks

        return ready_masks.obstacle(settings, weights)
    return None


def device_used(settings: Settings, device: str) -> str | None:
    """Return the device that a teacher uses when opened on `device` (cpu or cuda); None: unknown, as for a user's own
    code and ready-made masks.
    """
    fixed = {"felzenszwalb": "cpu", "python": None, "coco": None}
    return device if isinstance(settings, PromptedTeacher) else fixed[settings.kind]


def open_teacher(settings: Drawing, weights: Path, device: str = "cpu") -> Teacher:
    """Open a teacher. device: cpu or cuda, for SAM; felzenszwalb has only a CPU, and a user's own code decides by itself.

    Raises:
        TeacherError: its checkpoint or its entry point cannot be used.
    """
    if isinstance(settings, PythonTeacher):
        made = call_entry(settings.entry, **settings.settings)
        if not callable(made):
            raise TeacherError(
                f"{settings.entry} returned {type(made).__name__}, not a teacher: return a callable from image to Masks"
            )
        return checked(made, settings.entry)
    module = importlib.import_module(f"pretrain_sources.teachers.{settings.kind}")
    teacher: Teacher = module.open_teacher(settings, weights, device)
    return teacher
