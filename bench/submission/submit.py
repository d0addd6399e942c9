"""The way in: a folder with a card, the check that a reviewer runs, and the bundle that is handed in."""

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import yaml

from backbones.spec import BACKBONES, BackboneSpec, Refused, find_backbone
from bench import BenchError, checkpoints
from bench.matrix import CARD
from bench.plan import is_kept
from bench.records import now
from bench.units import NETWORK
from pretrain_sources import teachers
from pretrain_sources.card import Checkpoint, SourceCard
from pretrain_sources.catalog import UnknownSource, catalog, collect, find_source
from pretrain_sources.corpus import CorpusError, check_corpus
from pretrain_sources.download import sha256_of
from pretrain_sources.template import SCHEMA, TO_DO, Kind, schema, template
from pretrain_sources.yamlfile import FileError, read_yaml, suggestion
from results import bundle
from results import known_leaks as findings
from results.board import board
from results.bundle import BUNDLE, OF_A_RUN, Listing
from results.record import RunRecord
from results.record_files import read_records
from results.store import LEAKS, RUNS, Store, slug, write_atomic
from results.table import own_runs
from safe_files import aside_of, clear_leftovers_of

SHOWN = 5  # problems of one checkpoint with one encoder


def init(name: str, kind: Kind) -> Path:
    """Writes a folder with a commented card; returns it.

    Raises:
        BenchError: the name cannot be a source's, or the folder is there already.
    """
    if not re.fullmatch(bundle.SOURCE_NAME, name):
        raise BenchError(
            f"'{name}' cannot be a source's name: letters, digits and . _ / @ -, the first a letter or digit"
        )
    folder = Path(slug(name))
    if folder.exists():
        raise BenchError(f"{folder} is there already; nothing was written")
    try:
        find_source(name, catalog())
    except UnknownSource:
        write_atomic(folder / CARD, template(name, kind).encode())
        write_atomic(folder / SCHEMA, schema().encode())
        return folder
    raise BenchError(f"'{name}' is a source already; choose another name")


def check(folder: Path, weights: Path) -> tuple[list[str], list[str]]:
    """(faults, what was found good) of a folder that is to be submitted; every fault at once, each with its mend."""
    try:
        cards = collect([folder / CARD], catalog())
        card = cards[read_yaml(folder / CARD, SourceCard).name]
        find_source(card.name, cards)
    except (FileError, UnknownSource) as error:
        return str(error).splitlines(), []
    faults = list(_missing(card))
    good: list[str] = []
    for one in card.checkpoints:
        more, told = _checkpoint(card, one, weights)
        faults, good = [*faults, *more], [*good, *told]
    if card.corpus is not None:
        try:
            found, notes = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes)
            good += [
                f"corpus: {len(found.images)} images, {found.num_classes} classes",
                *(f"corpus: {n}" for n in notes),
            ]
        except CorpusError as error:
            faults += [f"corpus.path: {line}" for line in str(error).splitlines()]
    if card.recipe is not None:
        stop = teachers.obstacle(card.recipe.teacher, weights)
        good += [] if stop else ["recipe: its teacher can be asked here"]
        faults += [f"recipe.teacher: {stop.reason}; {stop.mend}"] if stop else []
    return faults, good


def _missing(card: SourceCard) -> Iterator[str]:
    """What a card may leave out at home, and not in a submission."""
    if not re.fullmatch(bundle.SOURCE_NAME, card.name):
        yield "name: + and ~ are for chains and controls; choose another name"
    if not (card.checkpoints or card.pretrains or card.control):
        yield "the card names no checkpoints, no recipe and no corpus: there is nothing to submit"
    if TO_DO in card.description or not card.description.strip():
        yield "description: still the template's; say in one sentence what it is"
    for name, why in (("licence", "under which others may use it"), ("contact", "whom to ask")):
        value = getattr(card, name) or ""
        if not value.strip() or TO_DO in value:
            yield f"{name}: missing; say {why}"
    if card.training_data == "unknown":
        yield "training_data: say which data sets it has seen, [] for none: a source that has seen a target's test is marked"


def _checkpoint(card: SourceCard, one: Checkpoint, weights: Path) -> tuple[list[str], list[str]]:
    faults, good = [], []
    specs: dict[tuple[str, str], BackboneSpec] = {}
    for wanted in one.backbones:
        try:
            found = [
                spec for name, spec in BACKBONES.items() if one.model_copy(update={"backbones": (wanted,)}).is_for(name)
            ]
            found = found or [find_backbone(wanted)]
            specs |= {(spec.builder, spec.encoder): spec for spec in found}  # a decoder makes no difference
        except (KeyError, Refused) as error:
            why = suggestion(wanted, BACKBONES) if isinstance(error, KeyError) else f": {error}"
            faults.append(f"checkpoints.backbones: '{wanted}' is no backbone{why}")
    for spec in specs.values():
        try:
            if stop := checkpoints.obstacle(card, spec.name, weights):
                faults.append(f"checkpoints: {stop}")
                continue
            checkpoints.identify(card, spec.name, weights)  # refuses another sha256
        except BenchError as error:
            faults.append(f"checkpoints.path: {error}")
            continue
        more, told = _loaded(card, spec, weights)
        faults += [f"checkpoints for {spec.name}: {problem}" for problem in more[:SHOWN]]
        faults += [f"checkpoints for {spec.name}: ... and {len(more) - SHOWN} more"] if len(more) > SHOWN else []
        good += [f"{spec.name}: {line}" for line in told]
    return faults, good


def _loaded(card: SourceCard, spec: BackboneSpec, weights: Path) -> tuple[tuple[str, ...], list[str]]:
    """(problems, what the certificate says) of the weights, loaded once as a run would."""
    import numpy as np
    import torch

    from backbones import network
    from backbones.transfer import LoadFailed, load_encoder
    from bench.targets import scenes

    torch.manual_seed(0)
    frame = torch.from_numpy(scenes.render(np.random.default_rng(0), (128, 160)).thermal)[None, None].float() / 255
    try:
        told = load_encoder(
            network.build(spec, 2), checkpoints.brought(card, spec, weights), frame, ["a rendered scene"]
        )
    except LoadFailed as error:
        return error.certificate.problems, []
    return (), [f"{told.tensors_matched} of {told.tensors_expected} tensors", *told.reading]


def pack(folder: Path, out: Path, store: Store) -> tuple[Path, list[str]]:
    """Makes OUT/<name> of a source's card and of its runs in the store; (the bundle, what is worth knowing).

    Networks that were kept go into OUT/<name>-networks, which is no part of the bundle: they are large.

    Raises:
        FileError: the card is wrong. BenchError: the store has no finished run of it.
    """
    cards = collect([folder / CARD], catalog())
    card = cards[read_yaml(folder / CARD, SourceCard).name]
    records = _current(store, card.name)
    if not any(record.status == "ok" for record in records):
        raise BenchError(
            f"{store.root} holds no finished run of '{card.name}'; make some with `bench run --matrix ... --source {folder}`"
        )
    made = out / slug(card.name)
    clear_leftovers_of(made)
    aside = aside_of(made)
    try:
        for record in records:
            here = store.folder_of(record)
            there = aside / RUNS / here.relative_to(store.root)
            there.mkdir(parents=True)
            for name in OF_A_RUN:
                if (here / name).is_file():
                    shutil.copyfile(here / name, there / name)
        for path in (store.root / LEAKS).glob("*/*.json"):
            if (found := findings.read_one(path)) is not None and bundle.is_of(found.source, card.name):
                findings.write(Store(aside / RUNS), found)
        (aside / CARD).write_text(_card_text(card))
        files = {
            path.relative_to(aside).as_posix(): sha256_of(path) for path in sorted(aside.rglob("*")) if path.is_file()
        }
        listing = Listing(
            name=card.name, made=now(), version=metadata.version("satir-bench"), environment=_environment(), files=files
        )
        write_atomic(aside / BUNDLE, (listing.model_dump_json(indent=1) + "\n").encode())
        if made.exists():
            shutil.rmtree(made)
        aside.rename(made)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    notes = [f"{len(records)} runs, {len(files)} files, {size / 1e6:.1f} MB"]
    if not (made / RUNS / LEAKS).is_dir():
        notes.append(f"nobody has looked whether it has seen test images: bench leaks --source {folder} --target ...")
    kept = [record.run for record in records if record.status == "ok" and is_kept(store, record.run)]
    networks = made.with_name(f"{made.name}-networks")
    if kept:
        networks.mkdir(exist_ok=True)
        for run in kept:
            shutil.copyfile(store.unit_dir("final", run) / NETWORK, networks / f"{run}.safetensors")
        notes.append(
            f"{len(kept)} networks in {networks}: publish them, so that others can spot-check; they are no part of the bundle"
        )
    else:
        notes.append(
            "no networks were kept, so nobody can spot-check it: `bench run ... --keep-weights` makes and keeps them"
        )
    return made, notes


def _current(store: Store, name: str) -> list[RunRecord]:
    """The records of a source, of its variants and of its controls, but for those whose inputs have changed since."""
    runs = own_runs(store)
    runs = runs[[bundle.is_of(source, name) for source in runs["source"]]]
    cells = board(runs)
    good = set(cells[cells["status"] != "stale"]["cell"])
    records, _ = read_records(store)
    return [record for record in records if record.cell in good and bundle.is_of(record.source, name)]


def _card_text(card: SourceCard) -> str:
    """The card for the bundle: what shapes a result or tells of it; of paths only the last part, of files their sha256."""
    shown = {name: value for name, value in card.model_dump(mode="json", exclude_none=True).items() if value != []}
    shown |= {"training_data": card.training_data if isinstance(card.training_data, str) else list(card.training_data)}
    for one, full in zip(shown.get("checkpoints", []), card.checkpoints, strict=True):
        if full.path is not None:
            one |= {"path": full.path.name, "sha256": full.sha256 or sha256_of(full.path)}
    if card.corpus is not None:
        shown["corpus"]["path"] = card.corpus.path.name
    if "checkpoint" in (teacher := shown.get("recipe", {}).get("teacher", {})):
        teacher["checkpoint"] = Path(teacher["checkpoint"]).name
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _environment() -> dict[str, str]:
    """Python, operating system, and the packages that the harness needs: nothing else of the machine or its user."""
    needs = [need for need in metadata.requires("satir-bench") or () if "extra ==" not in need]
    found = {name: metadata.version(name) for name in sorted(re.split(r"[^\w.-]", need)[0] for need in needs)}
    return {"python": sys.version.split()[0], "system": f"{platform.system()} {platform.machine()}"} | found
