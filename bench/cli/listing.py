"""Text for `bench ls`, `bench data check`, `bench backbone check` and `bench corpus check`. Loads no torch on import."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from backbones.registry import BACKBONES, installed, package_of
from backbones.spec import DECODERS, BackboneSpec
from bench.plan.matrix_file import MatrixFile
from bench.shipped import load_protocol, shipped_files
from bench.targets import Target, find_root, shipped_targets
from pretrain_sources.catalog import STUDIES, catalog
from pretrain_sources.config_file import read_yaml
from pretrain_sources.corpus import Corpus
from results.escape import for_terminal


def listing(data: Path) -> str:
    """List every name that a matrix can use, and where the data are."""
    lines = [f"targets (data in {data})"]
    for card in shipped_targets().values():
        root = find_root(card, data)
        where = f"found in {root}" if root else f"not available: {card.how_to_get}"
        lines.append(_entry(card.name, f"{len(card.classes)} classes; {where}"))
    lines.append(_entry("your own", "a card, see bench/targets/README.md and `bench data init`"))
    lines.append("matrices (bench run --matrix NAME)")
    lines += [_entry(name, _matrix_line(path)) for name, path in shipped_files("matrices").items()]
    lines.append("protocols")
    for name in shipped_files("protocols"):
        protocol = load_protocol(name)
        flags = [] if protocol.ranked else ["not ranked"]
        flags += ["selects on test"] if protocol.select_on == "test" else []
        each = f" of {protocol.tune_replicates} trainings" if protocol.tune_replicates > 1 else ""
        size = f"{protocol.finetune_steps} steps, {protocol.trials} trials{each}, {protocol.replicates} replicates, "
        size += protocol.device
        lines.append(_entry(name, ", ".join([size, *flags])))
    lines.append("sources")
    lines += [_entry(card.name, card.description) for card in catalog().values()]
    lines.append(_entry("and their variants", ", ".join(STUDIES)))
    lines.append("backbones")
    lines += [
        _entry(spec.name, f"{spec.encoder} encoder, {spec.decoder} decoder")
        for spec in BACKBONES.values()
        if not spec.for_tests
    ]
    lines += [
        _entry(name, f"{point.value}, of {package_of(point)}")
        for name, points in installed().items()
        for point in points
    ]
    lines.append(
        _entry(
            "DECODER:ENCODER", f"any other timm encoder with decoder {' or '.join(DECODERS)}, for example fpn:resnet18"
        )
    )
    lines.append(_entry("module:function", "one of your own, see backbones/README.md and `bench backbone check`"))
    return "\n".join(map(for_terminal, lines))


def data_report(target: Target, pool_notes: Sequence[str] = ()) -> str:
    """Text of `bench data check`: counts, sizes, class balance and notes; `pool_notes` are about the unlabelled images."""
    spec, lines = target.spec, [f"{target.spec.name} in {target.root}: can be used"]
    width = max(6, *map(len, target.splits))
    for split, frames in target.splits.items():
        groups = len({frame.group for frame in frames})
        sizes = Counter(f"{target.facts[f.id].width}x{target.facts[f.id].height}" for f in frames)
        shown = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
        lines.append(f"  {split:{width}} {len(frames):6} frames in {groups} groups, {shown}")
    lines += [
        f"  group: {spec.group_note}",
        f"  labels: {spec.label_note}",
        "",
        f"  {'class':16}" + "".join(f"{s:>10} px{'images':>8}" for s in target.splits),
    ]
    pixels = {split: [target.facts[frame.id].pixels for frame in frames] for split, frames in target.splits.items()}
    for k, name in enumerate((*spec.classes, "(ignore)")):
        shares = [sum(row[k] for row in rows) / max(1, sum(map(sum, rows))) for rows in pixels.values()]
        counts = [sum(row[k] > 0 for row in rows) for rows in pixels.values()]
        lines.append(f"  {name:16}" + "".join(f"{s:>13.2%}{n:>8}" for s, n in zip(shares, counts, strict=True)))
    absent = [name for k, name in enumerate(spec.classes) if not sum(row[k] for row in pixels["test"])]
    lines += [f"  not in test, so not scored: {', '.join(absent)}"] if absent else []
    notes = [f"  note: {note}" for note in (*target.notes, *pool_notes)]
    return "\n".join(map(for_terminal, [*lines, *notes, f"  content hash {target.content_hash}"]))


def contract_report(spec: BackboneSpec) -> tuple[str, int]:
    """Text of `bench backbone check`, and the number of broken clauses. Loads torch."""
    from backbones.contract import CLAUSES, problems

    lines, broken, tried = [], 0, 0
    for clause, why in problems(spec):
        lines.append(f"{'ok' if why is None else 'broken':7} {clause.name:11} {clause.rule}")
        lines += [] if why is None else [f"{'':19} {why}"]
        broken, tried = broken + (why is not None), tried + 1
    if rest := [clause.name for clause in CLAUSES[tried:]]:
        lines.append(f"not tried: {', '.join(rest)}")
    count = f"{broken} of {len(CLAUSES)} clauses broken" if broken else f"keeps all {len(CLAUSES)} clauses"
    shown = f" ({spec.encoder}, mean {spec.mean}, std {spec.std})" if spec.builder == "own" else ""
    return "\n".join(map(for_terminal, [*lines, f"{spec.name}{shown}: {count}"])), broken


def corpus_report(folder: Path, corpus: Corpus, notes: Sequence[str]) -> str:
    """Text of `bench corpus check`."""
    total = [sum(column) for column in zip(*(image.class_px for image in corpus.images), strict=True)]
    groups = len({image.group for image in corpus.images})
    lines = [f"{folder}: can be used; {len(corpus.images)} images in {groups} groups, {corpus.num_classes} classes", ""]
    for k, px in enumerate(total):
        name = "(ignore)" if k == corpus.num_classes else "0, no mask" if k == 0 else str(k)
        count = sum(image.class_px[k] > 0 for image in corpus.images)
        lines.append(f"  {name:12}{px / max(1, sum(total)):>10.2%} px{count:>9} images")
    lines += [*(f"  note: {note}" for note in notes), f"  content hash {corpus.content_hash}"]
    return "\n".join(map(for_terminal, lines))


def _entry(name: str, text: str) -> str:
    return f"  {name:24} {' '.join(text.split())}"


def _matrix_line(path: Path) -> str:
    matrix = read_yaml(path, MatrixFile)
    return f"{len(matrix.sources)} sources x {len(matrix.backbones)} backbones on {matrix.target}. {matrix.description}"
