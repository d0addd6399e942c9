"""Runs whose networks were kept, for the tests of what leaves a store."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, write_matrix

from bench.cli.app import main
from bench.plan.unit_folder import NETWORK
from bench.targets import Target, open_target
from bench.targets.frames import Frame
from bench.targets.mapping import map_target
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store

# a size of its own, windows that overlap, and merged classes: whatever `bench predict` left out would change the label maps
SETTINGS: dict[str, Any] = {
    "image_px": [104, 136],
    "window_px": [64, 80],
    "stride_px": [40, 60],
    "class_map": [
        {"name": "rest", "of": ["background", "sky", "person", "building", "tree", "road", "pole", "grass"]},
        {"name": "room", "of": ["door", "table", "chair", "lamp", "monitor"]},
        {
            "name": "street",
            "of": ["car", "bicycle", "traffic cone", "trash can", "animal", "fence", "river", "sidewalk"],
        },
    ],
}


# enough for a network that tells classes apart
SHORT: dict[str, Any] = {
    "finetune_steps": 40,
    "trials": 1,
    "default": {"lr": 1e-2, "encoder_lr_scale": 1.0, "weight_decay": 0.01, "warmup_frac": 0.1, "decay": "poly"},
}


def keep(folder: Path, data: Path, *words: str, **protocol: Any) -> Store:
    """Run none x tiny and keep its networks; return the store."""
    matrix = write_matrix(folder, **{**SHORT, **protocol})
    call = [
        "run",
        "--matrix",
        str(matrix),
        "--executor",
        "inline",
        "--store",
        str(folder / "store"),
        "--data",
        str(data),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["bench", *call, *words])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return Store(folder / "store")


def runs_of(store: Store) -> list[RunRecord]:
    """Return the runs of a store by replicate."""
    return sorted(read_records(store)[0], key=lambda record: record.replicate)


def target_of(data: Path, record: RunRecord) -> Target:
    """Open the target of a run, with its classes mapped."""
    from bench.spec import Protocol

    protocol = Protocol.model_validate(record.settings["protocol"])
    return map_target(open_target(record.target, data), protocol.class_map)


def frames_of(target: Target, names: list[str]) -> list[Frame]:
    """Return the test frames with these names, in this order."""
    by_name = {frame.id: frame for frame in target.splits["test"]}
    return [by_name[name] for name in names]


def network_of(store: Store, replicate: int = 0) -> Path:
    """Return the file of the kept network of a replicate."""
    return store.unit_dir("final", runs_of(store)[replicate].run) / NETWORK


def fault(bench: Bench, *words: object) -> str:
    """Return the one line of a call that fails."""
    done = bench(*words)
    assert (done.code, done.out) == (1, ""), done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("bench: ")
    return done.err
