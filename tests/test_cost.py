"""What runs cost: measured, recorded, and summed for a cell."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Bench, run_inline, write_matrix
from examples import cell, of_two_devices, record, store_of
from test_units import planned

from backbones import network
from backbones.registry import BACKBONES
from bench.cli.site.write import write_site
from bench.plan.cost import work_of
from bench.plan.unit_folder import SPENT, folder_of
from bench.plan.units import Unit
from bench.shipped import load_protocol
from bench.targets import Target, find_target, open_target
from bench.train import costs
from bench.train.batches import Decoded
from results import load_table
from results.board import board
from results.cell_cost import COSTS, with_costs
from results.cost import Cost
from results.record import RunRecord
from results.store import Store

DEMO = load_protocol("demo-v1")


def frames(height: int, width: int, count: int = 3) -> list[Decoded]:
    pixels = np.random.default_rng(0).integers(0, 255, (count, height, width), dtype=np.uint8)
    return [Decoded(str(i), "g", one, np.zeros((height, width), np.uint8)) for i, one in enumerate(pixels)]


def test_operations_of_a_network_by_hand() -> None:
    """A 3 x 3 convolution to 4 channels and a 1 x 1 one to 2 classes: 2 (9 C_in C_out) and 2 (C_in C_out) for each pixel."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(images))

    found = costs.of_network(Two(), frames(16, 20), DEMO)  # type: ignore[arg-type]
    assert found["parameters"] == 4 * 9 + 4 + 4 * 2 + 2
    assert found["flops"] == 16 * 20 * (2 * 9 * 4 + 2 * 4 * 2)
    assert found["images_per_s"] > 0


def test_measuring_changes_no_weight() -> None:
    net = network.build(BACKBONES["tiny"], 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small, large = (costs.of_network(net, frames(size, size), DEMO)["flops"] for size in (32, 64))
    assert large == pytest.approx(4 * small, rel=0.05)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_the_peak_of_memory_begins_anew() -> None:
    _hold(300)
    meter = costs.Meter(DEMO)
    if meter.peak_memory_bytes is None:
        pytest.skip("this system does not tell the peak of a process")
    first = meter.peak_memory_bytes
    _hold(200)
    second = meter.peak_memory_bytes
    assert second - first > 150e6
    assert meter.processor_s >= 0


def _hold(megabytes: int) -> None:
    np.ones(megabytes * 125_000).sum()


@pytest.fixture
def target(scenes: Path) -> Target:
    return open_target(find_target("scenes"), scenes)


def spend(store: Store, unit: Unit, target: Target, share: float, **changes: object) -> None:
    folder = folder_of(store, unit)
    folder.mkdir(parents=True)
    spent = {"seconds": 10.0, "processor_s": 8.0, "work": round(share * work_of(unit, target))} | changes
    (folder / SPENT).write_text(json.dumps(spent))


def test_time_of_the_stages_behind_a_run(target: Target, tmp_path: Path) -> None:
    store = Store(tmp_path)
    _, [unit, *_] = planned("satir/felzenszwalb")
    stages = {need.kind: need for need in costs._needs(unit)}
    assert set(stages) == {"corpus", "pretrain", "tune"}
    spend(store, stages["corpus"], target, 1)
    spend(store, stages["pretrain"], target, 0.5)  # killed, and resumed from half
    found = costs.behind(unit, store, target)
    assert (found["corpus_s"], found["corpus_processor_s"]) == (10, 8)
    assert (found["pretrain_s"], found["pretrain_processor_s"]) == (20, 16)
    assert (found["tune_s"], found["tune_processor_s"]) == (None, None), "not measured, so it is not 0"
    spend(store, stages["tune"], target, 1, processor_s=None)
    found = costs.behind(unit, store, target)
    assert (found["tune_s"], found["tune_processor_s"]) == (10, None), "made by an older version"
    (folder_of(store, stages["tune"]) / SPENT).write_text("[")
    assert costs.behind(unit, store, target)["tune_s"] is None


def test_weights_that_exist_are_no_pretraining(target: Target, tmp_path: Path) -> None:
    _, [unit, *_] = planned("imagenet", "fpn-efficientnet-lite0")
    assert [need.kind for need in costs._needs(unit)].count("pretrain") == 1
    found = costs.behind(unit, Store(tmp_path), target)
    assert (found["corpus_s"], found["pretrain_s"], found["tune_s"]) == (0, 0, None)


def test_hours_of_a_cell(tmp_path: Path) -> None:
    """Pseudo-labels and tuning are made once for the cell, pretraining and finetuning once for each replicate."""
    measured = Cost(
        parameters=2_000_000,
        flops=3_000_000_000,
        images_per_s=5,
        peak_memory_bytes=10**9,
        corpus_s=3600,
        pretrain_s=360,
        tune_s=7200,
        corpus_processor_s=1800,
        pretrain_processor_s=180,
        tune_processor_s=3600,
        final_processor_s=36,
    )
    newer = [record(i, cell="a" * 64, cost=measured) for i in range(3)]
    runs = load_table(store_of(tmp_path, newer, cell("imagenet", "b", range(3))).root)
    cells = with_costs(board(runs), runs).set_index("source")
    row = cells.loc["none", list(COSTS)].to_dict()
    finals = 3 * (1.0 + 1.0) / 3600  # train_s and score_s of `record`
    assert row == {
        "million_parameters": 2,
        "gflops": 3,
        "images_per_s": 5,
        "peak_gb": 1,
        "hours": pytest.approx(1 + 2 + 3 * 0.1 + finals),
        "processor_hours": pytest.approx(0.5 + 1 + 3 * 0.05 + 3 * 0.01),
    }
    assert cells.loc["imagenet", list(COSTS)].isna().all()


def test_runs_are_measured_and_older_ones_are_not(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run_inline(write_matrix(tmp_path, ("none",), ("tiny",)), store, scenes)
    [path, *_] = store.rglob("record.json")
    run = RunRecord.model_validate_json(path.read_bytes())
    assert run.cost is not None
    assert all(value is not None for name, value in run.cost if name != "peak_memory_bytes"), run.cost
    assert (run.cost.corpus_s, run.cost.pretrain_s) == (0, 0)
    assert (run.cost.tune_s or 0) > 0
    text = bench("table", "--columns", "cost", "--store", store).out
    assert all(title in text for title in COSTS.values())
    rows = pd.read_csv(io.StringIO(bench("table", "--columns", "cost", "--format", "csv", "--store", store).out))
    assert math.isclose(float(rows["million_parameters"].iloc[0]) * 1e6, run.cost.parameters or 0)
    older = json.loads(path.read_bytes())
    del older["cost"]
    path.write_text(json.dumps(older))
    columns = "  ".join(["not measured"] * len(COSTS))
    assert columns in bench("table", "--columns", "cost", "--store", store).out


def test_costs_of_two_devices_are_not_compared_in_silence(bench: Bench, tmp_path: Path) -> None:
    note = "Runs of different devices (B, cpu): hours and images/s compare only between those of one"
    one = store_of(tmp_path / "one", cell("none", "a", range(3)), cell("imagenet", "b", range(3)))
    assert "different devices" not in bench("table", "--columns", "cost", "--store", one.root).out
    store = of_two_devices(tmp_path / "two")
    assert note in bench("table", "--columns", "cost", "--store", store.root).out
    assert note not in bench("table", "--store", store.root).out
    write_site(store, tmp_path / "site")
    [page] = (tmp_path / "site/boards").iterdir()
    assert note in page.read_text()
