"""Score against cost: what no other cell beats, and what has no place in the figure."""

from pathlib import Path

import pytest
from examples import cell, store_of
from test_dashboard import Open, opened, texts  # noqa: F401 - opened is a fixture

from bench.cli.site.write import write_site
from results import charts, load_table
from results.board import board
from results.cost import Cost
from results.pareto import AXES, pareto
from results.store import Store


def store_with_costs(folder: Path) -> Store:
    """Four sources of which one was not measured and one has a leak."""
    costs = {name: Cost(parameters=size * 10**6) for name, size in (("none", 1), ("dear", 50), ("leaking", 2))}
    return store_of(
        folder,
        cell("none", "a", range(3), cost=costs["none"]),
        cell("dear", "b", range(3), cost=costs["dear"]),
        cell("leaking", "d", range(6, 9), cost=costs["leaking"], leak="it saw the test"),
        cell("older", "e", range(9, 12)),
    )


def test_the_front_and_what_is_left_out(tmp_path: Path) -> None:
    runs = load_table(store_with_costs(tmp_path / "store").root)
    found = pareto(board(runs), runs, "million_parameters")
    rows = found.rows.set_index("source")
    assert rows["cost"].to_dict() == {"none": 1, "dear": 50}
    assert rows["score"].nunique() == 1, "both have the same runs"
    assert rows["front"].to_dict() == {"none": True, "dear": False}, "it costs more and scores the same"
    assert sorted(found.left_out) == ["leaking x tiny: LEAK", "older x tiny: not measured"]
    assert pareto(board(runs), runs, "processor_hours").rows.empty
    spec = charts.pareto_chart(found.rows, "million parameters", "mIoU").to_dict()
    assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"


def test_equal_cells_are_both_on_the_front(tmp_path: Path) -> None:
    same = Cost(parameters=10**6)
    store = store_of(tmp_path / "s", cell("a", "a", range(3), cost=same), cell("b", "b", range(3), cost=same))
    runs = load_table(store.root)
    assert pareto(board(runs), runs, "million_parameters").rows["front"].tolist() == [True, True]


def test_a_cell_with_too_few_replicates_for_an_interval_has_a_place(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", cell("a", "a", range(2), replicates=2, cost=Cost(parameters=10**6)))
    runs = load_table(store.root)
    found = pareto(board(runs), runs, "million_parameters")
    assert found.rows["source"].tolist() == ["a"]
    assert found.rows[["low", "high"]].isna().all(axis=None)
    charts.pareto_chart(found.rows, "million parameters", "mIoU").to_dict()
    assert write_site(store, tmp_path / "site")


@pytest.mark.parametrize("cost", ["million_parameters", "processor_hours"])
def test_the_page_names_what_it_does_not_draw(cost: str, opened: Open, tmp_path: Path) -> None:  # noqa: F811
    app = opened(store_with_costs(tmp_path / "store").root, page="Cost", cost=AXES[cost])
    assert not app.exception, app.exception
    assert "older x tiny: not measured" in texts(app)
    assert ("none x tiny: not measured" in texts(app)) == (cost == "processor_hours")
