"""Prepare a submission: create the folder with its card, and check it."""

import fnmatch
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from backbones.registry import BACKBONES, known_backbone
from backbones.spec import BackboneError, BackboneSpec
from bench import BenchError
from bench.plan import card_weights
from bench.plan.matrix import CARD
from pretrain_sources import teachers
from pretrain_sources.card import Checkpoint, SourceCard
from pretrain_sources.catalog import UnknownSourceError, catalog, collect, find_source
from pretrain_sources.config_file import FileError, read_yaml, suggestion
from pretrain_sources.corpus import CorpusError, check_corpus
from pretrain_sources.image_files import Pixels
from pretrain_sources.template import SCHEMA, TO_DO, Kind, schema, template
from results import bundle
from results.store import slug, write_atomic

SHOWN = 5  # problems to show per checkpoint and encoder


def init(name: str, kind: Kind) -> Path:
    """Create a folder with a commented card; return it.

    Raises:
        BenchError: the name is invalid or taken, or the folder exists.
    """
    if not re.fullmatch(bundle.SOURCE_NAME, name):
        raise BenchError(
            f"'{name}' is not a valid source name: use letters, digits and . _ / @ -, beginning with a letter or digit"
        )
    folder = Path(slug(name))
    if folder.exists():
        raise BenchError(f"{folder} exists already: choose another name, or delete it")
    try:
        find_source(name, catalog())
    except UnknownSourceError:
        write_atomic(folder / CARD, template(name, kind).encode())
        write_atomic(folder / SCHEMA, schema().encode())
        return folder
    raise BenchError(f"source '{name}' exists already: choose another name")


def card_folder(path: Path) -> Path:
    """Return the folder of a card that is given by this folder or by its card file.

    Raises:
        BenchError: it is another file.
    """
    if not os.path.isfile(path):
        return path
    if path.name != CARD:
        raise BenchError(f"{path} is a file: give the folder of the source, which holds its card as {CARD}")
    return path.parent


def check(
    folder: Path, weights: Path, draw: Callable[[], Pixels], trusted: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Check a folder before it is submitted; return (all faults, each with its fix, and what passed).

    draw: returns a thermal image (H, W) to try networks with the weights on. trusted: backbones `module:function` that may be
    imported.
    """
    try:
        cards = collect([folder / CARD], catalog())
        card = cards[read_yaml(folder / CARD, SourceCard).name]
        find_source(card.name, cards)
    except (FileError, UnknownSourceError) as error:
        return str(error).splitlines(), []
    faults = list(_missing(card))
    good: list[str] = []
    for one in card.checkpoints:
        more, passed = _checkpoint(card, one, weights, draw, trusted)
        faults, good = [*faults, *more], [*good, *passed]
    if card.corpus is not None:
        try:
            corpus, notes = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes)
            good += [
                f"corpus: {len(corpus.images)} images, {corpus.num_classes} classes",
                *(f"corpus: {n}" for n in notes),
            ]
        except CorpusError as error:
            faults += [f"corpus.path: {line}" for line in str(error).splitlines()]
    if card.recipe is not None:
        stop = teachers.obstacle(card.recipe.teacher, weights)
        good += [] if stop else ["recipe: its teacher is available"]
        faults += [f"recipe.teacher: {stop}"] if stop else []
    return faults, good


def _missing(card: SourceCard) -> Iterator[str]:
    """Yield what a submitted card lacks, though a private one may."""
    if not re.fullmatch(bundle.SOURCE_NAME, card.name):
        yield "name: + and ~ are reserved for chains and controls; choose another name"
    if not (card.checkpoints or card.pretrains or card.control):
        yield "the card names no checkpoints, recipe, corpus or simmim: add one of them"
    if TO_DO in card.description or not card.description.strip():
        yield "description: missing; describe the source in one sentence"
    for name, why in (("licence", "under which others may use it"), ("contact", "whom to ask")):
        value = getattr(card, name) or ""
        if not value.strip() or TO_DO in value:
            yield f"{name}: missing; say {why}"
    if card.training_data == "unknown":
        yield "training_data: list the data sets it has seen, [] for none; a source that has seen a target's test is marked"


def _checkpoint(
    card: SourceCard, one: Checkpoint, weights: Path, draw: Callable[[], Pixels], trusted: Collection[str]
) -> tuple[list[str], list[str]]:
    faults, good, names = [], [], list[str]()
    specs: dict[tuple[str, str], BackboneSpec] = {}
    for wanted in one.backbones:
        try:
            matches = [
                spec for name, spec in BACKBONES.items() if one.model_copy(update={"backbones": (wanted,)}).is_for(name)
            ]
            own = [name for name in trusted if fnmatch.fnmatchcase(name, wanted)]
            matches += [known_backbone(name, trusted) for name in (own if own or matches else [wanted])]
            names += [spec.name for spec in matches if spec.name not in names]
            specs |= {(spec.builder, spec.encoder): spec for spec in matches}  # the decoder does not matter
        except (KeyError, BackboneError) as error:
            why = suggestion(wanted, BACKBONES) if isinstance(error, KeyError) else f": {error}"
            faults.append(f"checkpoints.backbones: unknown backbone '{wanted}'{why}")
    if len(specs) < len(names):
        tried = ", ".join(spec.name for spec in specs.values())
        good.append(f"{', '.join(one.backbones)}: matches {', '.join(names)}; tried one decoder per encoder: {tried}")
    for spec in specs.values():
        try:
            if stop := card_weights.obstacle(card, spec.name, weights):
                faults.append(f"checkpoints: {stop}")
                continue
            card_weights.identify(card, spec.name, weights)  # rejects another sha256
        except BenchError as error:
            faults.append(f"checkpoints.path: {error}")
            continue
        more, passed = _loaded(card, spec, weights, draw())
        faults += [f"checkpoints for {spec.name}: {problem}" for problem in more[:SHOWN]]
        faults += [f"checkpoints for {spec.name}: ... and {len(more) - SHOWN} more"] if len(more) > SHOWN else []
        good += [f"{spec.name}: {line}" for line in passed]
    return faults, good


def _loaded(card: SourceCard, spec: BackboneSpec, weights: Path, image: Pixels) -> tuple[tuple[str, ...], list[str]]:
    """Load the weights once, as a run does; return (problems, lines of the certificate)."""
    import torch

    from backbones import network
    from backbones.transfer import LoadError, load_encoder

    torch.manual_seed(0)
    frame = torch.from_numpy(image)[None, None].float() / 255
    try:
        certificate = load_encoder(
            network.build(spec, 2), card_weights.brought(card, spec, weights), frame, ["a rendered scene"]
        )
    except LoadError as error:
        return error.certificate.problems, []
    return (), [f"{certificate.tensors_matched} of {certificate.tensors_expected} tensors", *certificate.reading]
