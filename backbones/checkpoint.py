"""A submitted checkpoint: reading its tensors without running anything, and finding in them those of an encoder.

Nothing is filled or guessed. What was recognised, taken off, dropped or cast is told in sentences, for the certificate.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.layouts import Encoder, Part, encoder_of
from backbones.spec import BackboneSpec

SAVE_TENSORS = "save the tensors only, e.g. safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
MAX_NAME = 150  # characters in a tensor's name
# what a training run saves beside its weights, and what has tensors of its own there
_NO_WEIGHTS = r"optim|sched|scaler|loss|callback|hyper_?param|rng|amp$|ema_updater"
_COUNTER = "num_batches_tracked"
_RECOMPUTED = r"(^|\.)(relative_position_index|attn_mask|num_batches_tracked)$"  # buffers that no weights are in
_HEADS = r"^(heads?|fc|classifier|decode_head|auxiliary_head|decoder\w*|neck|projector|predictor|pooler)\b"
# what another architecture has at its top, where ours has nothing
_OTHER_TOP = r"(embeddings\.)?(reg(ister)?_tokens?|dist(illation)?_token|absolute_pos_embed|position_embeddings)"


class Unusable(Exception):
    """A checkpoint that cannot be used; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Fitted:
    """Tensors under an encoder's own names, and what was done to them.

    Where the encoder is not complete, what was left over stays in, under its original name: `transfer.load_encoder` then
    refuses, and names it beside the tensor that is missing.
    """

    tensors: dict[str, Tensor]
    told: tuple[str, ...]


def read_tensors(path: Path, inside: str | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a safetensors file, or of a file by `torch.save` that holds tensors and plain values only.

    inside: which part of the file, where several hold weights: keys joined by dots, e.g. `teacher` or `state.model`.

    Returns the tensors under their names in the file, and sentences on what was taken and ignored.

    Raises:
        Unusable: no such file, pickled code (never run), a torn file, no tensors in it, or several parts to choose from.
    """
    content = _read(path)
    stores = list(_stores(content, set()))
    if inside is not None:
        exact = [store for store in stores if store[0] == inside]
        stores = exact or [store for store in stores if store[0].startswith(f"{inside}.")]
    if not stores:
        where = f" inside '{inside}'" if inside else ""
        raise Unusable(
            f"{path}: no tensors by name{where}, only {_list(map(str, content)) or 'nothing'}; {SAVE_TENSORS}"
        )
    largest = max(len(tensors) for _, tensors in stores)
    rivals = [name for name, tensors in stores if 2 * len(tensors) >= largest]
    if len(rivals) > 1:
        raise Unusable(
            f"{path}: weights in several places, {_list(rivals, quote=True)}; say which with `inside`, "
            f"e.g. inside: '{rivals[-1]}'"
        )
    taken, tensors = next((name, tensors) for name, tensors in stores if name == rivals[0])
    for name, tensor in tensors.items():
        _check_storage(path, name, tensor)
    told = [f"{len(tensors)} tensors read from {path.name}" + (f", inside '{taken}'" if taken else "")]
    if taken:
        top = taken.partition(".")[0]
        beside = [str(key) for key in content if key != top]
        beside += [name for name, _ in stores if name != taken and name.startswith(f"{top}.")]
    else:
        beside = [str(key) for key in content if key not in tensors]
    if beside:
        told.append(f"ignored beside the weights: {_list(beside)}")
    return {name: tensor.detach() for name, tensor in tensors.items()}, tuple(told)


def fit(tensors: Mapping[str, Tensor], spec: BackboneSpec, renamings: Mapping[str, str | None] | None = None) -> Fitted:
    """Finds the encoder of `spec` among `tensors`, in whatever layout that is known, behind whatever prefix.

    renamings: beginning of names -> what stands there instead, before anything else; None, or a name that becomes empty,
        drops the tensor. Of several beginnings of one name the longest counts.

    Raises:
        Unusable: a renaming is at fault, nothing is recognised, two prefixes hold an encoder each, the weights are of a
            larger sibling, or their values are no floats.
    """
    told: list[str] = []
    original = _renamed(tensors, renamings or {}, told)
    encoder = encoder_of(spec)
    layout, prefix = _recognised(original, encoder, spec)
    told.append(f"layout: {layout}")
    if prefix:
        behind = sum(name.startswith(prefix) for name in original)
        told.append(f"prefix '{prefix}' taken off {behind} names")
    parts = encoder.parts[layout]
    there = {name.removeprefix(prefix): tensors[was] for name, was in original.items() if name.startswith(prefix)}
    found = {own: _make(own, part, there) for own, part in parts.items() if all(name in there for name in part.names)}
    _fill_counters(found, encoder, told)
    fitted = _as_floats(found, encoder, told)
    used = {prefix + name for own in found for name in parts.get(own, Part(())).names}
    left = {name: was for name, was in original.items() if name not in used}
    if missing := [own for own in encoder.tensors if own not in fitted]:
        theirs = dict.fromkeys(prefix + name for own in missing for name in parts[own].names if name not in there)
        told.append(f"{len(theirs)} tensors missing, in this layout {_list(theirs)}")
        kept = [was for name, was in left.items() if not re.match(_HEADS, name.removeprefix(prefix))]
        return Fitted(fitted | {was: tensors[was] for was in kept if was not in encoder.tensors}, tuple(told))
    inside = {name.removeprefix(prefix): was for name, was in left.items() if name.startswith(prefix)}
    expected = encoder.elsewhere[layout]
    strange = [
        was
        for name, was in inside.items()
        if name not in expected and not re.search(_RECOMPUTED, name) and _looks_like_a_part(name, parts)
    ]
    if strange:
        raise Unusable(
            f"weights of another architecture, such as a larger sibling: {len(strange)} tensors that {spec.encoder} "
            f"does not have, {_list(strange)}; choose the backbone that they are of, or, where they are of none, drop them "
            "by a renaming to null"
        )
    if left:
        told.append(f"{len(left)} tensors dropped, not of the encoder: {_list(left.values())}")
    return Fitted(fitted, tuple(told))


# reading


def _read(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise Unusable(f"{path}: {what}; give the path of a weights file")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise Unusable(f"{path}: an empty file; fetch it again")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise Unusable(f"{path}: a web page, not weights; fetch the file itself, not the page that shows it")
    if start.startswith(b"version https://git-lfs"):
        raise Unusable(f"{path}: a pointer of Git LFS, not the weights; run `git lfs pull` where it came from")
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _safetensors(path)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise Unusable(f"{path}: neither safetensors nor a file by torch.save; {SAVE_TENSORS}")
    return _pickled(path)


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise Unusable(f"{path}: torn, or not safetensors ({error}); fetch or save it again") from error


def _pickled(path: Path) -> Mapping[Any, Any]:
    try:
        # a Namespace holds a run's settings, in MAE's and DINO's files for instance, and does nothing when made
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a spoilt pickle can raise nearly anything
        text = " ".join(str(error).split())
        if re.search(r"Weights only load failed|TorchScript", text):
            named = re.search(r"GLOBAL (\S+)|global (\S+?),? ", text)
            what = f" ({named[1] or named[2]})" if named else ""
            raise Unusable(f"{path}: holds pickled code or objects{what}, which is not run; {SAVE_TENSORS}") from error
        why = f"{type(error).__name__}: {text[:200]}"
        raise Unusable(f"{path}: torn or not a checkpoint ({why}); fetch or save it again") from error
    if not isinstance(content, Mapping):
        raise Unusable(f"{path}: holds a {type(content).__name__}, not tensors by name; {SAVE_TENSORS}")
    return content


def _stores(content: Mapping[Any, Any], seen: set[int], path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(keys joined by dots, tensors) of every mapping that holds tensors by name, without the optimizer's and the like."""
    seen.add(id(content))  # a pickle can hold itself
    if tensors := {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}:
        yield path, tensors
    for key, value in content.items():
        known = not isinstance(value, Mapping) or id(value) in seen
        if isinstance(key, str) and not known and not re.search(_NO_WEIGHTS, key.lower()) and path.count(".") < 8:
            yield from _stores(value, seen, f"{path}.{key}" if path else key)


def _check_storage(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise Unusable(f"{path}: {name} is sparse, quantised or without values; save dense floating-point tensors")
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise Unusable(f"{path}: {name} of shape {tuple(tensor.shape)} is larger than its file; save it contiguous")


# renaming


def _renamed(tensors: Mapping[str, Tensor], renamings: Mapping[str, str | None], told: list[str]) -> dict[str, str]:
    """New name -> original name."""
    if long := next((name for name in tensors if len(name) > MAX_NAME), None):
        raise Unusable(f"a tensor's name of {len(long)} characters, {long[:40]}...; at most {MAX_NAME}")
    changed = dict.fromkeys(renamings, 0)
    original: dict[str, str] = {}
    dropped = 0
    for name in tensors:
        new = _new_name(name, renamings, changed)
        if new in original:
            raise Unusable(f"the renamings give {original[new]} and {name} one name, {new}")
        if len(new) > MAX_NAME:
            raise Unusable(f"renaming {name} gives a name of {len(new)} characters; at most {MAX_NAME}")
        if new:
            original[new] = name
        dropped += not new
    for old, count in changed.items():
        rule = f"renaming '{old}' -> {'null' if renamings[old] is None else repr(renamings[old])}"
        if not count:
            raise Unusable(f"{rule}: none of the {len(tensors)} names begins so, such as {_list(tensors)}")
        told.append(f"{rule}: {count} names")
    if dropped:
        told.append(f"{dropped} tensors dropped by the renamings")
    return original


def _new_name(name: str, renamings: Mapping[str, str | None], changed: dict[str, int]) -> str:
    """The name with the longest of its beginnings replaced, which is counted; empty where the tensor is dropped."""
    old = next((start for end in range(len(name), -1, -1) if (start := name[:end]) in renamings), None)
    if old is None:
        return name
    changed[old] += 1
    new = renamings[old]
    return "" if new is None else new + name.removeprefix(old)


# recognising


def _recognised(names: Iterable[str], encoder: Encoder, spec: BackboneSpec) -> tuple[str, str]:
    """The layout and the prefix that fill the largest share of the encoder."""
    names = list(names)
    best: tuple[float, str, Counter[str], int] = (0.0, "", Counter(), 0)
    for layout, parts in encoder.parts.items():
        wanted = {name for part in parts.values() for name in part.names if not name.endswith(_COUNTER)}
        prefixes = _prefixes(names, wanted)
        share = max(prefixes.values(), default=0) / max(len(wanted), 1)
        if share > best[0]:
            best = (share, layout, prefixes, len(wanted))
    _, layout, prefixes, wanted_count = best
    if not prefixes:
        raise Unusable(
            f"nothing of {spec.encoder} is recognised in any layout ({', '.join(encoder.parts)}): given are "
            f"{_list(sorted(names))}, the encoder's are {_list(encoder.tensors)}; write renamings from the one to the other"
        )
    whole = [prefix for prefix, count in prefixes.items() if 2 * count >= wanted_count]
    if len(whole) > 1:
        some = next(prefix for prefix in reversed(whole) if prefix)
        raise Unusable(
            f"{len(whole)} encoders, behind the prefixes {_list(whole, quote=True)}; choose one by renamings that drop the "
            f"others, e.g. '{some}': null"
        )
    prefix = max(prefixes, key=lambda one: prefixes[one])
    return layout, prefix


def _prefixes(names: Iterable[str], wanted: set[str]) -> Counter[str]:
    """Prefix, with its dot -> how many of the wanted names stand behind it."""
    found: Counter[str] = Counter()
    for name in names:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if name[start:] in wanted)
    return found


def _make(own: str, part: Part, there: Mapping[str, Tensor]) -> Tensor:
    given = [there[name] for name in part.names]
    try:
        return part.make(given)
    except (RuntimeError, IndexError, TypeError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(part.names, given, strict=True))
        raise Unusable(f"{own} cannot be made of {shapes}: {error}") from error


def _fill_counters(found: dict[str, Tensor], encoder: Encoder, told: list[str]) -> None:
    """BatchNorm's step counter, which no result depends on, is missing in old checkpoints and cast in some."""
    counters = [own for own in encoder.tensors if own.endswith(_COUNTER)]
    absent = [own for own in counters if own not in found or found[own].is_floating_point()]
    found |= {own: torch.zeros((), dtype=torch.int64) for own in absent}
    if absent:
        told.append(f"{len(absent)} counters ({_COUNTER}) set to 0: they were missing or no integers")


def _as_floats(found: Mapping[str, Tensor], encoder: Encoder, told: list[str]) -> dict[str, Tensor]:
    fitted: dict[str, Tensor] = {}
    cast: Counter[str] = Counter()
    for own, tensor in found.items():
        dtype = encoder.tensors[own].dtype
        if dtype.is_floating_point and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise Unusable(f"{own} holds {kind} where the encoder has floats; save the weights as float32")
        if tensor.dtype != dtype and tensor.shape == encoder.tensors[own].shape:
            cast[str(tensor.dtype).removeprefix("torch.")] += dtype.is_floating_point
            tensor = tensor.to(dtype)
        fitted[own] = tensor
    told += [f"{count} tensors cast from {kind} to float32" for kind, count in cast.items() if count]
    return fitted


def _looks_like_a_part(name: str, parts: Mapping[str, Part]) -> bool:
    """Whether a tensor that the encoder does not have stands among those that it has: in a numbered block, or at the top."""
    numbered = {_stem(known) for part in parts.values() for known in part.names} - {None}
    return bool(re.fullmatch(_OTHER_TOP, name)) or _stem(name) in numbered


def _stem(name: str) -> str | None:
    """A name up to its first number, `layer` of layer3.7.conv1.weight; None where it has no number."""
    numbered = re.match(r"(\D*)\d", name)
    return numbered and numbered[1]


def _list(names: Iterable[str], quote: bool = False) -> str:
    """The first few, for a sentence."""
    shown = [f"'{name}'" if quote else name for name in names]
    more = f" and {len(shown) - 3} more" if len(shown) > 4 else ""
    return ", ".join(shown[:3] if more else shown) + more
