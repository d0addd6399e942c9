"""Extracting the tensors of an encoder from a submitted checkpoint.

Nothing is filled in or guessed. What was recognised, stripped, dropped or cast is recorded for the certificate.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.checkpoint_file import CheckpointError, listed
from backbones.encoder_layouts import Encoder, encoder_of
from backbones.layout_rules import Layout, Part
from backbones.position_embeddings import fit_positions
from backbones.renaming import renamed
from backbones.spec import BackboneSpec

_COUNTER = "num_batches_tracked"
_RECOMPUTED = r"(^|\.)(relative_position_index|attn_mask|num_batches_tracked)$"  # buffers without weights
_HEADS = r"^(heads?|fc|classifier|decode_head|auxiliary_head|decoder\w*|neck|projector|predictor|pooler)\b"
# top-level tensors of other architectures
_OTHER_TOP = (
    r"(embeddings\.)?((reg(ister)?|storage)_tokens?|dist(illation)?_token|absolute_pos_embed|pos_embed|position_embeddings)"
    r"|norm_pre\.\w+|rel_pos_bias\.relative_position_bias_table"
)
_PATCHES = "model.patch_embed.proj.weight"  # a transformer without it does not take images


@dataclass(frozen=True)
class Fitted:
    """Tensors under an encoder's own names, and a log of what was done to them.

    If the encoder is incomplete, left-over tensors keep their original names: `transfer.load_encoder` then refuses them and
    names the nearest ones for each missing tensor.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def fit(tensors: Mapping[str, Tensor], spec: BackboneSpec, renamings: Mapping[str, str | None] | None = None) -> Fitted:
    """Extract the encoder of `spec` from `tensors`, in any known layout and behind any prefix.

    renamings: prefix of names -> its replacement, applied first; None, or a name that becomes empty, drops the tensor. The
        longest matching prefix wins.

    Raises:
        CheckpointError: a renaming is wrong, no layout matches, there are two encoders, the weights belong to a larger
            architecture, or their values are not floating-point.
    """
    notes: list[str] = []
    original = renamed(tensors, renamings or {}, notes)
    encoder = encoder_of(spec)
    layout, prefix = _recognise(original, encoder, spec)
    notes.append(f"layout: {layout}")
    behind = {name.removeprefix(prefix): was for name, was in original.items() if name.startswith(prefix)}
    if prefix:
        notes.append(f"prefix '{prefix}' removed from {len(behind)} names")
    parts = encoder.parts[layout]
    there = {name: tensors[was] for name, was in behind.items()}
    fitted = _converted(there, encoder, parts, notes)
    used = {prefix + name for own in fitted for name in parts.get(own, Part(())).names}
    left = {name: was for name, was in original.items() if name not in used}
    if missing := [own for own in encoder.tensors if own not in fitted]:
        theirs = dict.fromkeys(prefix + name for own in missing for name in parts[own].names if name not in behind)
        notes.append(f"{len(theirs)} tensors missing, in this layout {listed(theirs)}")
        kept = [was for name, was in left.items() if not re.match(_HEADS, name.removeprefix(prefix))]
        return Fitted(fitted | {was: tensors[was] for was in kept if was not in encoder.tensors}, tuple(notes))
    inside = {name.removeprefix(prefix): was for name, was in left.items() if name.startswith(prefix)}
    extra = {name: tensors[was] for name, was in inside.items() if name not in encoder.elsewhere[layout]}
    if changing := _changing(extra, encoder.layouts[layout], parts):
        raise CheckpointError(
            f"weights of another architecture, such as a larger sibling: {len(changing)} tensors that {spec.encoder} "
            f"does not have, {listed(inside[name] for name in changing)}; choose the backbone that they belong to, "
            "or drop them by a renaming to null"
        )
    if left:
        notes.append(f"{len(left)} tensors dropped, not part of the encoder: {listed(left.values())}")
    return Fitted(fitted, tuple(notes))


def _converted(
    there: Mapping[str, Tensor], encoder: Encoder, parts: Mapping[str, Part], notes: list[str]
) -> dict[str, Tensor]:
    """Convert the tensors that a checkpoint has to the encoder's names and types."""
    made = {own: _make(own, part, there) for own, part in parts.items() if all(name in there for name in part.names)}
    _fill_counters(made, encoder, notes)
    return _as_floats(fit_positions(made, encoder.positions, notes), encoder, notes)


def _changing(extra: Mapping[str, Tensor], layout: Layout, parts: Mapping[str, Part]) -> list[str]:
    """Return the names of extra tensors without which the encoder is another function: further blocks, tokens, ...

    extra: tensors of a checkpoint that has all of the encoder's, under their names without the prefix.
    """

    def matters(name: str, tensor: Tensor) -> bool:
        for pattern, changes_nothing in layout.unused:
            if re.fullmatch(pattern, name):
                return not changes_nothing(tensor)
        adds_nothing = name.endswith("bias") and not tensor.any()
        return not adds_nothing and not re.search(_RECOMPUTED, name) and _looks_like_a_part(name, parts)

    return [name for name, tensor in extra.items() if matters(name, tensor)]


def _recognise(names: Iterable[str], encoder: Encoder, spec: BackboneSpec) -> tuple[str, str]:
    """Return the layout and the prefix that fill the largest share of the encoder."""
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
            f"no layout of {spec.encoder} matches ({', '.join(encoder.parts)}): the checkpoint has "
            f"{listed(sorted(names))}, the encoder {listed(encoder.tensors)}; map the names with `rename` in the card"
        )
    patches = encoder.parts[layout].get(_PATCHES)
    whole = [
        prefix
        for prefix, count in prefixes.items()
        if 2 * count >= wanted_count and (patches is None or prefix + patches.names[0] in names)
    ]
    if len(whole) > 1:
        some = next(prefix for prefix in reversed(whole) if prefix)
        raise CheckpointError(
            f"{len(whole)} encoders, behind the prefixes {listed(whole, quote=True)}; drop all but one with `rename`, "
            f"e.g. '{some}': null"
        )
    prefix = max(whole or prefixes, key=lambda one: prefixes[one])
    return layout, prefix


def _prefixes(names: Iterable[str], wanted: set[str]) -> Counter[str]:
    """Count the wanted names behind each prefix (with its dot)."""
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        counts.update(name[:start] for start in starts if name[start:] in wanted)
    return counts


def _make(own: str, part: Part, there: Mapping[str, Tensor]) -> Tensor:
    given = [there[name] for name in part.names]
    try:
        return part.make(given)
    except (RuntimeError, IndexError, TypeError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(part.names, given, strict=True))
        raise CheckpointError(f"{own} cannot be made from {shapes}: {error}") from error


def _fill_counters(tensors: dict[str, Tensor], encoder: Encoder, notes: list[str]) -> None:
    """Set BatchNorm's step counter to 0 where it is missing or a float. No result depends on it."""
    counters = [own for own in encoder.tensors if own.endswith(_COUNTER)]
    absent = [own for own in counters if own not in tensors or tensors[own].is_floating_point()]
    tensors |= {own: torch.zeros((), dtype=torch.int64) for own in absent}
    if absent:
        notes.append(f"{len(absent)} counters ({_COUNTER}) set to 0: missing or not integers")


def _as_floats(tensors: Mapping[str, Tensor], encoder: Encoder, notes: list[str]) -> dict[str, Tensor]:
    fitted: dict[str, Tensor] = {}
    cast: Counter[str] = Counter()
    for own, tensor in tensors.items():
        dtype = encoder.tensors[own].dtype
        if dtype.is_floating_point and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{own} is {kind}, not floating-point; save the weights as float32")
        if tensor.dtype != dtype and tensor.shape == encoder.tensors[own].shape:
            cast[str(tensor.dtype).removeprefix("torch.")] += dtype.is_floating_point
            tensor = tensor.to(dtype)
        fitted[own] = tensor
    notes += [f"{count} tensors cast from {kind} to float32" for kind, count in cast.items() if count]
    return fitted


def _looks_like_a_part(name: str, parts: Mapping[str, Part]) -> bool:
    """Return whether an unused tensor is in one of the encoder's numbered blocks, or is a top-level tensor such as a token."""
    numbered = {_stem(known) for part in parts.values() for known in part.names} - {None}
    return bool(re.fullmatch(_OTHER_TOP, name)) or _stem(name) in numbered


def _stem(name: str) -> str | None:
    """Return a name up to its first number, such as `layer` of layer3.7.conv1.weight; None without a number."""
    numbered = re.match(r"(\D*)\d", name)
    return numbered and numbered[1]
