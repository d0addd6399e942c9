"""Reduced class sets: a protocol may merge classes of a target or ignore some, as publications do."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench import BenchError
from bench.spec import IGNORED, MappedClass
from bench.targets import Target
from bench.targets.card import TargetSpec
from bench.targets.splits import unscorable
from pretrain_sources.config_file import suggestion
from pretrain_sources.image_files import IGNORE, Pixels

ClassMap = Sequence[MappedClass] | None


def map_spec(spec: TargetSpec, class_map: ClassMap) -> TargetSpec:
    """Return the target definition with the mapped classes; the label note describes the map.

    Raises:
        BenchError: the map names an unknown class, omits a class, or does not begin with the background.
    """
    if class_map is None:
        return spec
    named = [name for mapped in class_map for name in mapped.of]
    for name in named:
        if name not in spec.classes:
            raise BenchError(f"class_map: {spec.name} has no class '{name}'{suggestion(name, spec.classes)}")
    if missing := [name for name in spec.classes if name not in named]:
        raise BenchError(
            f"class_map omits {', '.join(missing)} of {spec.name}: "
            f"add each to a class, or to '{IGNORED}' to exclude its pixels"
        )
    if spec.classes[0] not in class_map[0].of:
        raise BenchError(
            f"class_map: the first class is the background (in loss, crops and scores) and must include '{spec.classes[0]}'"
        )
    kept = [mapped for mapped in class_map if mapped.name != IGNORED]
    parts = [m.name if m.of == (m.name,) else f"{m.name} = {' + '.join(m.of)}" for m in class_map]
    note = f"{spec.label_note}; {len(kept)} classes made of {len(spec.classes)}: {', '.join(parts)}"
    return replace(spec, classes=tuple(mapped.name for mapped in kept), label_note=note)


def map_target(target: Target, class_map: ClassMap) -> Target:
    """Return the target with the protocol's class map applied to its classes, pixel counts and labels.

    Raises:
        BenchError: as `map_spec`, or a split has no class left to score.
    """
    if class_map is None:
        return target
    spec = map_spec(target.spec, class_map)
    relabel = relabelling(target.spec, spec, class_map)
    facts = {
        name: replace(fact, pixels=merged(fact.pixels, relabel, len(spec.classes)))
        for name, fact in target.facts.items()
    }
    if undefined := unscorable(spec, target.splits, facts):
        raise BenchError(f"class_map on {target.spec.name}: {undefined}")
    return replace(target, spec=spec, facts=facts, relabel=relabel)


def relabelling(spec: TargetSpec, mapped: TargetSpec, class_map: Sequence[MappedClass]) -> Pixels:
    """Return (256,): stored label -> new label."""
    index = {old: mapped.classes.index(m.name) for m in class_map if m.name != IGNORED for old in m.of}
    relabel = np.full(256, IGNORE, dtype=np.uint8)
    for k, old in enumerate(spec.classes):
        relabel[k] = index.get(old, IGNORE)
    return relabel


def merged(pixels: Sequence[int], relabel: Pixels, classes: int) -> tuple[int, ...]:
    """Return the pixel counts of the mapped classes, ignore last."""
    to = np.append(relabel[: len(pixels) - 1], IGNORE)
    counts = np.bincount(to, weights=pixels, minlength=256)
    return tuple(int(count) for count in (*counts[:classes], counts[IGNORE]))
