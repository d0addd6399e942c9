"""Models of the Hugging Face hub: locating, checking and fetching their files. Nothing but the three FILES is read, and no pickle.

Search order: the folder MODEL in the user's folder of weights, the hub's cache, the hub. torch is not imported.
"""

import functools
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_sources.hashing import fingerprint
from pretrain_sources.recipe import TransformersTeacher
from pretrain_sources.teachers.contract import TeacherError
from safe_io.files import sha256_of, short_digest
from safe_io.web import PATIENCE_S, DownloadError, hub_silence, refuse_large

FILES = (CONFIG, PROCESSOR, TENSORS) = ("config.json", "preprocessor_config.json", "model.safetensors")
HASHES = ("sha256", "config_sha256")  # in the identity: of the tensors, and of the other two files
MODEL_TYPES = {
    "sam": ("sam",),
    "sam2": ("sam2", "sam2_video"),
}  # Meta's SAM 2 on the hub are video models with one for images
PICKLES = (".bin", ".pt", ".pth")
MOST_CONFIG_BYTES = 2**20
COMMITS = Path(".cache") / "huggingface" / "download"  # where `hf download --local-dir` notes the commit of each file


class ModelFiles(NamedTuple):
    """The parsed configurations of model and image processor, and the file of tensors."""

    config: dict[str, Any]
    processor: dict[str, Any]
    tensors: Path


def hashes(settings: TransformersTeacher, weights: Path) -> dict[str, str | None]:
    """Return HASHES: as set, else of the files, else as the hub says; None if a file is missing and the hub does not help."""
    if settings.sha256 and settings.config_sha256:
        return {"sha256": settings.sha256, "config_sha256": settings.config_sha256}
    # first, because it also downloads the two small files
    of_the_hub = _of_the_hub(settings, weights).sha256 if _is_remote(settings, weights) else None
    path = _here(settings, weights, TENSORS)
    return {
        "sha256": settings.sha256 or (sha256_of(path) if path else of_the_hub),
        "config_sha256": settings.config_sha256 or _config_sha256(settings, weights),
    }


def obstacle(settings: TransformersTeacher, weights: Path) -> str | None:
    """Return why the model is not available and what to do, or None. Asks the hub at most once per process."""
    folder = weights / settings.model
    if folder.is_dir():
        stop = _incomplete(settings, weights, folder) or _of_another_commit(settings, weights, folder)
    else:
        stop = _of_the_hub(settings, weights).why if _is_remote(settings, weights) else None
    return stop or _other_type(settings, weights)


def find_or_fetch(settings: TransformersTeacher, weights: Path) -> ModelFiles:
    """Return the model's files after checking their hashes; they are downloaded into the hub's cache if needed.

    Raises:
        TeacherError: one is missing, cannot be read, or has another hash than is set; or the download failed.
    """
    if stop := obstacle(settings, weights):
        raise TeacherError(stop)
    path = _here(settings, weights, TENSORS) or _download(settings, weights, TENSORS)
    found = {"sha256": sha256_of(path), "config_sha256": _config_sha256(settings, weights)}
    for name, actual in found.items():
        if (wanted := getattr(settings, name)) not in (None, actual):
            raise TeacherError(
                f"{path if name == 'sha256' else f'{CONFIG} and {PROCESSOR} of {settings.model}'}: {name} is "
                f"{short_digest(str(actual))}, expected {short_digest(wanted)}: run the same command again if you replaced "
                f"the model, or fix `{name}`"
            )
    config, processor = (_here(settings, weights, name) for name in (CONFIG, PROCESSOR))
    assert config is not None  # the obstacle
    assert processor is not None
    return ModelFiles(_parsed(config), _parsed(processor), path)


def fetch_command(settings: TransformersTeacher, weights: Path) -> str:
    """Return the command that downloads the model's files into the folder of weights."""
    revision = f" --revision {settings.revision}" if settings.revision else ""
    folder = shlex.quote(str(weights / settings.model))
    return f"hf download {settings.model} {' '.join(FILES)}{revision} --local-dir {folder}"


# -- on this machine -------------------------------------------------------------------------------------------------------


def _here(settings: TransformersTeacher, weights: Path, name: str) -> Path | None:
    """Return the path of a file that needs no download."""
    folder = weights / settings.model
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(settings.model, name, revision=settings.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _is_remote(settings: TransformersTeacher, weights: Path) -> bool:
    """Return whether the hub is needed: a folder, even an incomplete one, comes before it."""
    return not (weights / settings.model).is_dir() and not all(_here(settings, weights, name) for name in FILES)


def _incomplete(settings: TransformersTeacher, weights: Path, folder: Path) -> str | None:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if not missing:
        return None
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    why = f" ({pickled[0]} is a pickle, which is never read)" if TENSORS in missing and pickled else ""
    return f"{folder} has no {', '.join(missing)}{why}; to fetch: {fetch_command(settings, weights)}"


def _of_another_commit(settings: TransformersTeacher, weights: Path, folder: Path) -> str | None:
    """Return that the files were downloaded from another commit than the one asked for, where both are known."""
    try:
        commit = (folder / COMMITS / f"{TENSORS}.metadata").read_text().split()[0]
    except (OSError, ValueError, IndexError):
        return None
    if settings.revision in (None, commit) or len(settings.revision or "") != len(commit):  # a tag cannot be compared
        return None
    return (
        f"{folder} holds commit {short_digest(commit)} of {settings.model}, the card asks for {settings.revision}: "
        f"correct `revision`, or fetch it: {fetch_command(settings, weights)}"
    )


def _config_sha256(settings: TransformersTeacher, weights: Path) -> str | None:
    paths = [_here(settings, weights, name) for name in (CONFIG, PROCESSOR)]
    return fingerprint([[path.name, sha256_of(path)] for path in paths if path]) if all(paths) else None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            raise ValueError(f"more than {MOST_CONFIG_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TeacherError(f"{path} cannot be read as JSON: {error}; download it again") from error
    if not isinstance(content, dict):
        raise TeacherError(f"{path} holds a {type(content).__name__}, not settings by name; download it again")
    return content


def _other_type(settings: TransformersTeacher, weights: Path) -> str | None:
    """Return that config.json is of another type of model than the settings ask for."""
    path = _here(settings, weights, CONFIG)
    if path is None:
        return None
    try:
        found = _parsed(path).get("model_type")
    except TeacherError as error:
        return str(error)
    if found in MODEL_TYPES[settings.architecture]:
        return None
    fitting = [name for name, types in MODEL_TYPES.items() if found in types]
    fix = (
        f"set `architecture: {fitting[0]}`, or correct `model`"
        if fitting
        else "only sam and sam2 can be used; masks that another program drew can be read with `kind: coco`"
    )
    return f"{path} is of model_type {found!r}, the card asks for architecture {settings.architecture}: {fix}"


# -- on the hub ------------------------------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What the hub says of a model. why: the reason why it cannot be used; sha256: of its tensors; silent: it did not answer."""

    why: str | None
    sha256: str | None = None
    silent: bool = False


def _of_the_hub(settings: TransformersTeacher, weights: Path) -> _Answer:
    if "/" not in settings.model:
        text = "is not an id of the hub, which is OWNER/NAME"
        return _Answer(f"no folder {weights / settings.model}, and {settings.model} {text}: correct `model`")
    if silence := hub_silence():
        answer = _Answer(f"the hub of {settings.model} is not reachable: {silence}", silent=True)
    else:
        answer = _asked(settings.model, settings.revision)
    return _Answer(f"{answer.why}; to fetch: {fetch_command(settings, weights)}") if answer.silent else answer


@functools.cache
def _asked(model: str, revision: str | None) -> _Answer:
    """Ask the hub for a model, once per process, and download its two small files."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        listed = api.model_info(model, revision=revision, timeout=PATIENCE_S, files_metadata=True).siblings or ()
        answer = _judged(model, {one.rfilename: one for one in listed})
        for name in (CONFIG, PROCESSOR) if answer.why is None else ():
            api.hf_hub_download(model, name, revision=revision)
        return answer
    except GatedRepoError:
        return _Answer(f"{model} asks for an agreement on the hub: accept it there and run `hf auth login`")
    except RepositoryNotFoundError:
        return _Answer(f"the hub has no model {model}: correct `model`, or run `hf auth login` if it is private")
    except RevisionNotFoundError:
        return _Answer(f"{model} on the hub has no revision {revision}: correct `revision`")
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return _Answer(f"the hub failed for {model}: {_line(error)}", silent=True)


def _judged(model: str, listed: Mapping[str, Any]) -> _Answer:
    """Judge a model by the names, sizes and hashes of its files."""
    if missing := [name for name in FILES if name not in listed]:
        return _Answer(f"{model} on the hub has no {', '.join(missing)}, and nothing else is read: correct `model`")
    if large := [name for name in (CONFIG, PROCESSOR) if (listed[name].size or 0) > MOST_CONFIG_BYTES]:
        return _Answer(f"{large[0]} of {model} has more than {MOST_CONFIG_BYTES} bytes: correct `model`")
    try:
        refuse_large(listed[TENSORS].size or 0, f"{TENSORS} of {model}")
    except DownloadError as error:
        return _Answer(str(error))
    if listed[TENSORS].lfs is None:
        return _Answer(f"the hub gives no sha256 of {TENSORS} of {model}: correct `model`")
    return _Answer(None, listed[TENSORS].lfs.sha256)


def _download(settings: TransformersTeacher, weights: Path, name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    try:
        return Path(hf_hub_download(settings.model, name, revision=settings.revision, endpoint=constants.ENDPOINT))
    except Exception as error:  # of whichever HTTP library the hub's client uses
        raise TeacherError(
            f"the download of {name} of {settings.model} failed: {_line(error)}; "
            f"try again, or fetch it: {fetch_command(settings, weights)}"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
