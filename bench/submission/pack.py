"""Pack the bundle of a source: its card, its runs, their evidence and checksums; no images, no weights."""

import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import yaml

from bench import BenchError
from bench.plan.matrix import CARD
from bench.plan.records import now
from bench.plan.saved_plans import target_file
from bench.plan.unit_folder import NETWORK, is_kept
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, collect
from pretrain_sources.config_file import read_yaml
from results import bundle
from results import known_leaks as findings
from results.board import board
from results.bundle import BUNDLE, OF_A_RUN, Listing
from results.record import RunRecord, evidence_name
from results.record_files import read_records
from results.store import LEAKS, RUNS, Store, slug, write_atomic
from results.table import own_runs
from safe_io.files import aside_of, clear_leftovers_of, sha256_of


def pack(folder: Path, out: Path, store: Store) -> tuple[Path, list[str]]:
    """Pack a source's card and its runs in the store into OUT/<name>; return (bundle, notes).

    Kept networks go into OUT/<name>-networks, which is not part of the bundle because they are large.

    Raises:
        FileError: the card is invalid. BenchError: the store has no finished run of the source.
    """
    cards = collect([folder / CARD], catalog())
    card = cards[read_yaml(folder / CARD, SourceCard).name]
    records = _current(store, card.name)
    if not any(record.status == "ok" for record in records):
        raise BenchError(
            f"{store.root} has no finished run of '{card.name}'; make some with `bench run --matrix ... --source {folder}`"
        )
    made = out / slug(card.name)
    clear_leftovers_of(made)
    aside = aside_of(made)
    try:
        count = _fill(aside, card, records, store)
        if made.exists():
            shutil.rmtree(made)
        aside.rename(made)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    notes = [f"{len(records)} runs, {count} files, {size / 1e6:.1f} MB"]
    if not (made / RUNS / LEAKS).is_dir():
        notes.append(f"not checked for test images that it has seen: bench leaks --source {folder} --target ...")
    return made, [*notes, _copy_networks(made, records, store)]


def _fill(folder: Path, card: SourceCard, records: list[RunRecord], store: Store) -> int:
    """Fill the folder of a bundle, the listing last; return the number of listed files."""
    for record in records:
        here = store.folder_of(record)
        there = folder / RUNS / here.relative_to(store.root)
        there.mkdir(parents=True)
        for name in {*OF_A_RUN, *map(evidence_name, record.by_split)}:
            if (here / name).is_file():
                shutil.copyfile(here / name, there / name)
    for record in records:
        here, there = (target_file(root, record.target, record.target_hash) for root in (store.root, folder / RUNS))
        if here.is_file():
            there.parent.mkdir(exist_ok=True)
            shutil.copyfile(here, there)
    for path in (store.root / LEAKS).glob("*/*.json"):
        if (finding := findings.read_one(path)) is not None and bundle.is_of(finding.source, card.name):
            findings.write(Store(folder / RUNS), finding)
    (folder / CARD).write_text(_card_text(card))
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    version = metadata.version("satir-bench")
    listing = Listing(name=card.name, made=now(), version=version, environment=_environment(), files=files)
    write_atomic(folder / BUNDLE, (listing.model_dump_json(indent=1) + "\n").encode())
    return len(files)


def _copy_networks(made: Path, records: list[RunRecord], store: Store) -> str:
    """Copy the kept networks into a folder beside the bundle; return a note about it."""
    kept = [record.run for record in records if record.status == "ok" and is_kept(store, record.run)]
    if not kept:
        return "no networks were kept, so it cannot be spot-checked: make them with `bench run ... --keep-weights`"
    networks = made.with_name(f"{made.name}-networks")
    networks.mkdir(exist_ok=True)
    for run in kept:
        shutil.copyfile(store.unit_dir("final", run) / NETWORK, networks / f"{run}.safetensors")
    where = f"{len(kept)} networks in {networks}"
    return f"{where}: publish them so that others can spot-check; they are not part of the bundle"


def _current(store: Store, name: str) -> list[RunRecord]:
    """Records of a source, its variants and its controls, without those whose inputs have changed since."""
    runs = own_runs(store)
    runs = runs[[bundle.is_of(source, name) for source in runs["source"]]]
    cells = board(runs)
    good = set(cells[cells["status"] != "stale"]["cell"])
    records, _ = read_records(store)
    return [record for record in records if record.cell in good and bundle.is_of(record.source, name)]


def _card_text(card: SourceCard) -> str:
    """The card for the bundle: paths are reduced to file names, and checkpoints get their sha256."""
    shown = {name: value for name, value in card.model_dump(mode="json", exclude_none=True).items() if value != []}
    shown |= {"training_data": card.training_data if isinstance(card.training_data, str) else list(card.training_data)}
    for one, full in zip(shown.get("checkpoints", []), card.checkpoints, strict=True):
        if full.path is not None:
            one |= {"path": full.path.name, "sha256": full.sha256 or sha256_of(full.path)}
    if card.corpus is not None:
        shown["corpus"]["path"] = card.corpus.path.name
    teacher = shown.get("recipe", {}).get("teacher", {})
    teacher |= {key: Path(teacher[key]).name for key in ("checkpoint", "path") if key in teacher}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _environment() -> dict[str, str]:
    """Versions of Python, the operating system and the required packages; nothing else about the machine or user."""
    needs = [need for need in metadata.requires("satir-bench") or () if "extra ==" not in need]
    packages = {name: metadata.version(name) for name in sorted(re.split(r"[^\w.-]", need)[0] for need in needs)}
    return {"python": sys.version.split()[0], "system": f"{platform.system()} {platform.machine()}"} | packages
