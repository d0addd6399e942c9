"""Finding the tensors of an encoder among those of a submitted checkpoint.

Nothing is filled or guessed. What was recognised, taken off, dropped or cast is told in sentences, for the certificate.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.checkpoint_file import CheckpointError, listed
from backbones.encoder_layouts import Encoder, encoder_of
from backbones.layout_rules import Part
from backbones.renaming import renamed
from backbones.spec import BackboneSpec

_COUNTER = "num_batches_tracked"
_RECOMPUTED = r"(^|\.)(relative_position_index|attn_mask|num_batches_tracked)$"  # buffers that no weights are in
_HEADS = r"^(heads?|fc|classifier|decode_head|auxiliary_head|decoder\w*|neck|projector|predictor|pooler)\b"
# what another architecture has at its top, where ours has nothing
_OTHER_TOP = r"(embeddings\.)?(reg(ister)?_tokens?|dist(illation)?_token|absolute_pos_embed|position_embeddings)"


@dataclass(frozen=True)
class Fitted:
    """Tensors under an encoder's own names, and what was done to them.

    Where the encoder is not complete, what was left over stays in, under its original name: `transfer.load_encoder` then
    refuses, and names it beside the tensor that is missing.
    """

    tensors: dict[str, Tensor]
    told: tuple[str, ...]


def fit(tensors: Mapping[str, Tensor], spec: BackboneSpec, renamings: Mapping[str, str | None] | None = None) -> Fitted:
    """Finds the encoder of `spec` among `tensors`, in whatever layout that is known, behind whatever prefix.

    renamings: beginning of names -> what stands there instead, before anything else; None, or a name that becomes empty,
        drops the tensor. Of several beginnings of one name the longest counts.

    Raises:
        CheckpointError: a renaming is at fault, nothing is recognised, two prefixes hold an encoder each, the weights are of a
            larger sibling, or their values are no floats.
    """
    told: list[str] = []
    original = renamed(tensors, renamings or {}, told)
    encoder = encoder_of(spec)
    layout, prefix = _recognised(original, encoder, spec)
    told.append(f"layout: {layout}")
    behind = {name.removeprefix(prefix): was for name, was in original.items() if name.startswith(prefix)}
    if prefix:
        told.append(f"prefix '{prefix}' taken off {len(behind)} names")
    parts = encoder.parts[layout]
    found = _converted({name: tensors[was] for name, was in behind.items()}, encoder, parts, told)
    used = {prefix + name for own in found for name in parts.get(own, Part(())).names}
    left = {name: was for name, was in original.items() if name not in used}
    if missing := [own for own in encoder.tensors if own not in found]:
        theirs = dict.fromkeys(prefix + name for own in missing for name in parts[own].names if name not in behind)
        told.append(f"{len(theirs)} tensors missing, in this layout {listed(theirs)}")
        kept = [was for name, was in left.items() if not re.match(_HEADS, name.removeprefix(prefix))]
        return Fitted(found | {was: tensors[was] for was in kept if was not in encoder.tensors}, tuple(told))
    inside = {name.removeprefix(prefix): was for name, was in left.items() if name.startswith(prefix)}
    _refuse_a_sibling(inside, parts, encoder.elsewhere[layout], spec)
    if left:
        told.append(f"{len(left)} tensors dropped, not of the encoder: {listed(left.values())}")
    return Fitted(found, tuple(told))


def _converted(
    there: Mapping[str, Tensor], encoder: Encoder, parts: Mapping[str, Part], told: list[str]
) -> dict[str, Tensor]:
    """The encoder's tensors, under its own names and of its own types, as far as a checkpoint has what they are made of."""
    made = {own: _make(own, part, there) for own, part in parts.items() if all(name in there for name in part.names)}
    _fill_counters(made, encoder, told)
    return _as_floats(made, encoder, told)


def _refuse_a_sibling(
    left: Mapping[str, str], parts: Mapping[str, Part], elsewhere: frozenset[str], spec: BackboneSpec
) -> None:
    """Refuses a checkpoint whose encoder is complete and has more of the same: deeper blocks, other tokens.

    left: name without the prefix -> original name, of what the encoder did not take. elsewhere: what the whole model has there.

    Raises:
        CheckpointError: there is such a tensor.
    """
    strange = [
        was
        for name, was in left.items()
        if name not in elsewhere and not re.search(_RECOMPUTED, name) and _looks_like_a_part(name, parts)
    ]
    if strange:
        raise CheckpointError(
            f"weights of another architecture, such as a larger sibling: {len(strange)} tensors that {spec.encoder} "
            f"does not have, {listed(strange)}; choose the backbone that they are of, or, where they are of none, drop them "
            "by a renaming to null"
        )


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
        raise CheckpointError(
            f"nothing of {spec.encoder} is recognised in any layout ({', '.join(encoder.parts)}): given are "
            f"{listed(sorted(names))}, the encoder's are {listed(encoder.tensors)}; write renamings from the one to the other"
        )
    whole = [prefix for prefix, count in prefixes.items() if 2 * count >= wanted_count]
    if len(whole) > 1:
        some = next(prefix for prefix in reversed(whole) if prefix)
        raise CheckpointError(
            f"{len(whole)} encoders, behind the prefixes {listed(whole, quote=True)}; choose one by renamings that drop the "
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
        raise CheckpointError(f"{own} cannot be made of {shapes}: {error}") from error


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
            raise CheckpointError(f"{own} holds {kind} where the encoder has floats; save the weights as float32")
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
