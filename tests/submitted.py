"""A submission made once: a checkpoint of the tiny network, run beside `none` under a protocol that counts as shipped, packed."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from conftest import protocol_fields

from backbones import network
from backbones.registry import find_backbone
from bench import shipped
from bench.plan.matrix import load_matrix
from bench.plan.plan import Sweep
from bench.run.run import How, run_matrix
from bench.submission import pack, verify
from bench.targets import open_target
from bench.targets.manifest import make_manifest, write_manifest
from pretrain_sources.hashing import fingerprint
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store, slug

CARD: dict[str, Any] = {
    "name": "mine",
    "description": "A test's own weights.",
    "checkpoints": [{"backbones": ["tiny"], "path": "weights.safetensors"}],
    "licence": "CC0-1.0",
    "contact": "test@example.org",
    "training_data": [],
}


def fingerprints(tree: Mapping[str, Any]) -> tuple[str, str]:
    """(run, cell) fingerprints from a spelled-out identity, computed independently."""
    below = [fingerprints(unit) for unit in tree.get("needs", ())]
    own = {name: value for name, value in tree.items() if name != "replicate"}
    run = dict(tree) | ({"needs": [run for run, _ in below]} if "needs" in tree else {})
    return fingerprint(run), fingerprint(own | {"needs": [cell for _, cell in below]})


def card_folder(folder: Path, backbone: str = "tiny", **changes: object) -> Path:
    """A folder with a card and weights whose names have a data-parallel prefix."""
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    tensors = network.build(find_backbone(backbone), 2).encoder.state_dict()
    changes = {"checkpoints": [CARD["checkpoints"][0] | {"backbones": [backbone]}]} | changes
    safetensors.torch.save_file(
        {f"module.encoder.{name}": tensor.contiguous() for name, tensor in tensors.items()},
        folder / "weights.safetensors",
    )
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | changes))
    return folder


@dataclass(frozen=True)
class Packed:
    """The files of a submission."""

    folder: Path  # with card and weights
    store: Path
    bundle: Path
    networks: Path
    manifest: Path
    matrix: Path

    def records(self) -> list[RunRecord]:
        return read_records(Store(self.store))[0]

    def copy(self, to: Path) -> "Packed":
        """Copy the bundle to TO/submissions."""
        there = to / "submissions" / self.bundle.name
        shutil.copytree(self.bundle, there)
        return Packed(self.folder, self.store, there, self.networks, self.manifest, self.matrix)

    def repack(self) -> None:
        """Update bundle.json to the current files, as a forger would."""
        listing = json.loads((self.bundle / "bundle.json").read_text())
        files = [path for path in sorted(self.bundle.rglob("*")) if path.is_file() and path.name != "bundle.json"]
        listing["files"] = {
            path.relative_to(self.bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }
        listing["made"] += "."
        (self.bundle / "bundle.json").write_text(json.dumps(listing))

    def codes(self) -> set[str]:
        """Update bundle.json and verify the bundle; return the codes of its faults."""
        self.repack()
        return {fault.code for fault in verify.judge(self.bundle, [self.manifest]).faults}

    def run(self, replicate: int = 0) -> Path:
        """The folder of a run in the bundle."""
        return next(self.bundle.glob(f"runs/*/*/*/*/r{replicate}-*"))

    def edit(self, change: Callable[[dict[str, Any]], None], replicate: int = 0, name: str = "record.json") -> None:
        """Edit a JSON file of a run, and move the run's folder to match its record."""
        folder = self.run(replicate)
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
        if name == "record.json":
            place = [slug(str(content[part])) for part in ("target", "protocol", "source", "backbone")]
            there = self.bundle.joinpath("runs", *place, f"r{content['replicate']}-{content['run'][:12]}")
            there.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(there)


def pack_one(data: Path, here: Path, backbone: str = "tiny", **changes: object) -> Packed:
    """Run and pack it. `ship` adds the protocol to the shipped ones. changes: of the matrix."""
    matrix = here / "test-matrix.yaml"
    fields = {"target": "scenes", "protocol": "test-v1", "sources": ["none"], "backbones": [backbone]}
    matrix.write_text(yaml.safe_dump(fields | changes))
    folder, store = card_folder(here / "mine", backbone), Store(here / "store")
    manifest = here / "scenes.json"
    write_manifest(make_manifest(open_target("scenes", data)), manifest)
    sweep = Sweep(load_matrix(str(matrix), sources=[str(folder)]), store, data, here / "weights", keep=True)
    run_matrix(sweep, How("inline"), Silent())
    made, _ = pack.pack(folder, here / "out", store)
    return Packed(folder, store.root, made, here / "out" / "mine-networks", manifest, matrix)


class Silent:
    """A display that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def ship(folder: Path, **changes: object) -> Callable[[str], dict[str, Path]]:
    """Replacement of `bench.shipped.shipped_files` that adds the protocol of the tests."""
    fields = protocol_fields(**changes)
    path = folder / f"{fields['name']}.yaml"
    path.write_text(yaml.safe_dump(fields))
    real = shipped.shipped_files
    return lambda kind: {**real(kind), **({path.stem: path} if kind == "protocols" else {})}
