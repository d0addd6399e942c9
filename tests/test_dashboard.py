"""The dashboard, without a browser."""

import functools
import json
import shutil
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from examples import evidence, of_two_devices, record, record_paths, write
from spoiled import ODD_FILES, in_place_of
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from test_questions import filled  # noqa: F401 - a fixture

from dashboard import filters
from dashboard.views.leaderboard import badges, gain
from results import load_table, over_images, prediction_samples
from results.board import board, constant_note
from results.class_scores import class_means
from results.record_files import write_record
from results.run_files import about_val, importance
from results.store import Store
from results.table import runs_frame

APP = Path(filters.__file__).with_name("app.py")
PAGES = ("Leaderboard", "Matrix", "Compare", "Cost", "Scaling", "Run", "Images")

Open = Callable[..., AppTest]
components = functools.cache(manifest_scanner.scan_component_manifests)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the dashboard on a store, with parameters of the URL."""
    # scanning all installed packages dominates the time of an AppTest
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", components)

    def open_it(store: Path, **words: Any) -> AppTest:
        monkeypatch.setenv("BENCH_STORE", str(store))
        app = AppTest.from_file(str(APP), default_timeout=60)
        for name, value in words.items():
            app.query_params[name] = value
        return app.run()

    return open_it


def texts(app: AppTest) -> str:
    parts = [*app.info, *app.error, *app.warning, *app.caption, *app.markdown, *app.text, *app.title]
    return "\n".join(str(part.value).replace("\\", "") for part in parts)


def shown(app: AppTest, column: str) -> pd.DataFrame:
    """Return the first table with this column."""
    return next(table.value for table in app.dataframe if column in table.value)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens(page: str, opened: Open, filled: Path, tmp_path: Path) -> None:  # noqa: F811
    for store in (tmp_path / "none yet", filled):
        app = opened(store, page=page)
        assert not app.exception, app.exception
        assert not app.error
        assert app.title
    assert "results that ship with the project" in texts(opened(tmp_path / "none yet"))


def test_the_cost_page_says_that_devices_differ(opened: Open, filled: Path, tmp_path: Path) -> None:  # noqa: F811
    assert "Runs of different devices (B, cpu): hours" in texts(opened(of_two_devices(tmp_path).root, page="Cost"))
    assert "different devices" not in texts(opened(filled, page="Cost"))


def test_the_table_is_the_board(opened: Open, filled: Path) -> None:  # noqa: F811
    rows, cells = shown(opened(filled), "badges"), board(load_table(filled))
    assert str(constant_note(load_table(filled))) in texts(opened(filled))
    assert rows["miou"].tolist() == cells["miou"].tolist()
    base = cells[cells["source"] == "none"].set_index("backbone")["miou"]
    assert rows["gain over none"].tolist() == (cells["miou"] - cells["backbone"].map(base)).tolist()
    per_class = shown(opened(filled, classes="true"), "person")
    mean = np.mean([values[1] for values in load_table(filled).query("cell == @cells['cell'][0]")["class_iou"]])
    assert per_class["person"][0] == pytest.approx(mean)


def test_scores_of_the_classes_are_chosen_in_the_url(opened: Open, filled: Path) -> None:  # noqa: F811
    runs = load_table(filled)
    app = opened(filled, classes="true", scores=["precision", "area ratio", "no such score"])
    assert not app.exception, app.exception
    tables = [one.value for one in app.dataframe if "person" in one.value]
    assert len(tables) == 2
    for name, rows in zip(("precision", "area"), tables, strict=True):
        wanted = class_means(runs, board(runs), name).values
        pd.testing.assert_frame_equal(rows[list(wanted.columns)], wanted, check_index_type=False)
    assert "area ratio: pixels predicted as the class / pixels of the class" in texts(app)
    app = opened(filled, classes="true", metric="weighted F-measure")
    assert "weighted F: mean over the test images that contain the class" in texts(app)
    assert not [one for one in opened(filled).dataframe if "person" in one.value]


def test_older_runs_without_evidence_for_their_classes(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of_three(tmp_path)
    words = {"classes": "true", "scores": "recall"}
    next(store.root.rglob("mine/**/evidence.npz")).write_bytes(evidence(99).to_bytes())
    app = opened(store.root, **words)
    rows = shown(app, "person").set_index("source")["person"]
    assert rows.isna().to_dict() == {"mine": True, "none": False}
    assert "recall is missing for 1 run: " in texts(app)
    assert str(tmp_path) not in texts(app)
    monkeypatch.setattr("dashboard.views.leaderboard.MOST_EVIDENCE", 5)
    app = opened(store.root, **words)
    assert "6 runs are older than these scores: use the filters, or `bench table --columns recall`" in texts(app)
    assert not [one for one in app.dataframe if "person" in one.value]
    assert [one for one in opened(store.root, **words, search="none").dataframe if "person" in one.value]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ({"backbone": "tiny"}, lambda cells: cells["backbone"] == "tiny"),
        ({"family": "satir"}, lambda cells: cells["source"].str.startswith("satir")),
        ({"search": "n-1"}, lambda cells: cells["source"].str.contains("n-1")),
    ],
)
def test_filter_in_the_url(
    words: dict[str, str],
    left: Callable[[pd.DataFrame], "pd.Series[bool]"],
    opened: Open,
    filled: Path,  # noqa: F811
) -> None:
    app = opened(filled, **words)
    assert not app.exception
    cells = board(load_table(filled))
    assert sorted(shown(app, "badges")["miou"]) == sorted(cells[left(cells)]["miou"])


@pytest.mark.parametrize("page", PAGES)
def test_filters_without_matches(page: str, opened: Open, filled: Path) -> None:  # noqa: F811
    app = opened(filled, page=page, search="([")
    assert not app.exception, app.exception


def test_the_other_metric(opened: Open, filled: Path) -> None:  # noqa: F811
    rows = shown(opened(filled, page="Matrix", metric="weighted F-measure"), "weighted_f")
    assert sorted(rows["weighted_f"]) == sorted(board(load_table(filled))["weighted_f"])


def test_compare_shows_the_judgement(opened: Open, filled: Path) -> None:  # noqa: F811
    shown_texts = texts(opened(filled, page="Compare", a="satir", b="none"))
    assert "SUPPORTED alone and among all 15 pairs: satir is" in shown_texts
    assert "12 groups of 48 test images" in shown_texts
    assert "Choose two different sources" in texts(opened(filled, page="Compare", a="none", b="none"))


def test_intervals_below_zero_are_no_formulas(opened: Open, filled: Path) -> None:  # noqa: F811
    rows = shown(opened(filled, page="Compare", a="none", b="satir"), "95 % both")
    assert rows["95 % trainings"].str.fullmatch("\u2212[0-9.]+ to \u2212[0-9.]+").all(), rows["95 % trainings"]


def test_scaling_shows_curve_and_verdict(opened: Open, filled: Path) -> None:  # noqa: F811
    app = opened(filled, page="Scaling", source="satir")
    assert sorted(set(shown(app, "size")["size"])) == [10, 30, 100, 300]
    assert "still rising" in texts(app)
    assert "has no complete cells along groups" in texts(
        opened(filled, page="Scaling", source="satir", axis="groups of images in the corpus")
    )


def test_images_of_two_runs_and_where_they_differ(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rng = np.random.default_rng(0)
    for source in ("none", "imagenet"):
        for replicate in range(3):
            made = record(replicate, seed=replicate + len(source), source=source, cell=source[0].encode().hex() * 32)
            from examples import evidence

            write_record(store, made, evidence(replicate + len(source)))
            labels = {f"image-{i}": rng.integers(0, 3, (40, 700), dtype=np.uint8) for i in range(4)}
            prediction_samples.write(prediction_samples.predictions_file(store, made.run), labels)
    assert "has no sample images" in texts(opened(store.root, page="Images"))
    for path in prediction_samples.truth_files(store, "t" * 64, "p" * 64):
        prediction_samples.write(path, labels)
    app = opened(store.root, page="Images")
    assert not app.exception
    assert "image-0" in texts(app)
    kept = prediction_samples.read(prediction_samples.predictions_file(store, made.run))
    assert kept["image-0"].shape == (14, 234)
    prediction_samples.predictions_file(store, made.run).write_bytes(b"torn")
    assert prediction_samples.read(prediction_samples.predictions_file(store, made.run)) == {}


# -- unusual stores ---------------------------------------------------------------------------------------------


def test_empty_store_suggests_a_command(opened: Open, tmp_path: Path) -> None:
    app = opened(tmp_path)
    assert not app.exception
    assert "bench run --matrix demo" in texts(app)


def test_a_store_that_is_a_file(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    app = opened(tmp_path / "file")
    assert not app.exception
    assert "is a file, not a folder" in texts(app)


@pytest.mark.parametrize("page", PAGES)
def test_one_failed_run_only(page: str, opened: Open, tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("scores", "tuning", "provenance", "evidence_sha256", "normalisation"))
    write_record(Store(tmp_path), record(status="failed", reason="the driver is gone", **nothing))
    app = opened(tmp_path, page=page)
    assert not app.exception, app.exception
    if page in ("Leaderboard", "Run"):
        assert "the driver is gone" in texts(app)


def test_damaged_and_newer_records_are_listed(opened: Open, tmp_path: Path) -> None:
    from examples import evidence

    store = Store(tmp_path)
    folders = [write_record(store, record(i), evidence(i)) for i in range(3)]
    (folders[0] / "record.json").write_text('{"schema_version": 1, "run"')
    newer = json.loads((folders[1] / "record.json").read_text()) | {"schema_version": 2, "unheard_of": 1}
    (folders[1] / "record.json").write_text(json.dumps(newer))
    app = opened(tmp_path)
    assert not app.exception
    assert "2 records or submissions were left out" in app.expander[0].label
    assert "made by a newer version of satir-bench (schema 2, this one reads 1): update it" in texts(app)
    assert folders[0].relative_to(tmp_path).as_posix() in texts(app)
    assert str(tmp_path) not in texts(app), "local path"


@pytest.mark.parametrize("page", PAGES)
def test_text_of_a_card_is_shown_as_text(page: str, opened: Open, tmp_path: Path) -> None:
    from examples import evidence

    name = "<script>alert(1)</script>[x](javascript:alert(2))![y](z)"
    for i in range(3):
        for source, cell in ((name, "1"), ("none", "2")):
            made = record(i, source=source, label_note=name, cell=cell * 64, seed=i)
            write_record(Store(tmp_path), made, evidence(i))
    app = opened(tmp_path, page=page)
    assert not app.exception, app.exception
    for part in [*app.markdown, *app.caption, *app.info, *app.warning]:
        assert not part.allow_html if hasattr(part, "allow_html") else True
        assert "<script" not in part.value.replace(r"\<script", "")
        assert "](javascript" not in part.value


# -- parts -----------------------------------------------------------------------------------------------------------


def test_badges_and_families() -> None:
    cell: dict[Hashable, Any] = {
        "n": 5,
        "source": "mine",
        "leak": None,
        "status": "ok",
        "badge": None,
        "touched": np.nan,
    }
    cell |= {"says_touched": np.nan}
    control: dict[Hashable, Any] = {"source": "satir/top-4~shuffled", "leak": "seen"}
    assert badges(cell | control) == ["measured", "control", "LEAK"]
    assert badges(cell | {"n": 0, "status": "oom", "leak": np.nan}) == ["oom"]
    assert badges(cell | {"badge": "spot-checked"}) == ["submitted, spot-checked"]
    assert badges(cell | {"touched": 0.07}) == ["measured", "has seen 7% of the test"]
    assert badges(cell | {"touched": 0.0}) == ["measured"]
    assert badges(cell | {"says_touched": 0.07}) == ["measured", "declares 7% of the test seen"]
    assert filters.family("imagenet+satir/felzenszwalb~permuted") == "imagenet+satir"


def test_importance_of_settings() -> None:
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": range(40), "lr": rng.uniform(size=40), "decay": rng.choice(["poly", "cosine"], 40)})
    trials["val_miou"] = trials["lr"] + 0.01 * rng.uniform(size=40)
    assert importance(trials.head(9)) is None
    shares = importance(trials)
    assert shares is not None
    assert shares["lr"] > 0.9


def test_tiers_ignore_source_filters(opened: Open, filled: Path) -> None:  # noqa: F811
    whole = shown(opened(filled), "tier").set_index("source")
    part = shown(opened(filled, search="n-"), "tier").set_index("source")
    assert list(part.index) == ["satir/n-100", "satir/n-30", "satir/n-10"]
    pd.testing.assert_frame_equal(part, whole.loc[part.index])


def test_gain_uses_a_complete_baseline() -> None:
    rows = [("none", "a", "ok", 0.5), ("none", "b", "partial", 0.4), ("none", "a", "stale", 0.1)]
    rows += [("satir", "a", "ok", 0.6), ("satir", "b", "ok", 0.6)]
    cells = pd.DataFrame(rows, columns=["source", "backbone", "status", "miou"]).assign(leak=None)
    chosen = filters.Chosen(None, "miou", cells, cells, cells, cells, cells[cells["source"] == "satir"])  # type: ignore[arg-type]
    assert gain(chosen, "none").tolist() == pytest.approx([0.1, np.nan], nan_ok=True)


def test_stale_leaking_and_partial_cells_are_not_coloured() -> None:
    from results.charts import as_bytes, matrix_chart

    rows = [("a", "ok", None, 0.5), ("b", "ok", "seen", 0.6), ("c", "partial", None, 0.7), ("a", "stale", None, 0.8)]
    cells = pd.DataFrame(rows, columns=["source", "status", "leak", "miou"]).assign(
        backbone="x", miou_low=None, miou_high=None, n=3, reason=None
    )
    drawn = as_bytes(matrix_chart(cells, "miou", "mIoU"), "svg").decode()
    assert ">0.500<" in drawn
    assert ">0.600 LEAK<" in drawn
    assert ">0.700 partial<" in drawn
    assert "0.800" not in drawn
    none = cells[cells["status"] != "ok"].assign(miou=None)
    assert "partial" in as_bytes(matrix_chart(none, "miou", "mIoU"), "svg").decode()


def test_store_that_changes_while_the_page_is_open(opened: Open, filled: Path, tmp_path: Path) -> None:  # noqa: F811
    copied = tmp_path / "store"
    shutil.copytree(filled, copied)
    app = opened(copied, page="Compare", a="satir", b="none")
    for path in copied.rglob("evidence.npz"):
        path.write_bytes(evidence(99).to_bytes())
    over_images._counts.cache_clear()
    over_images._image_scores.cache_clear()
    app.run()
    assert not app.exception
    assert "does not match the checksum in its record.json" in texts(app)


ODD_LINES = {
    "deep": "[" * 5000 + "]" * 5000,
    "a list": "[1]",
    "settings that are lists": '{"schedule": {"lr": [1]}, "val_miou": 0.5}',
    "a setting of the name of a column": '{"schedule": {"trial": 1.0, "val_miou": 2.0}, "val_miou": 0.5}',
    "not a number": '{"schedule": {"lr": NaN}, "val_miou": Infinity}',
    "two kinds": '{"schedule": {"lr": 1}, "val_miou": 0.5}\n{"schedule": {"lr": "x", "more": 2}, "val_miou": 0.6}',
}


@pytest.mark.parametrize("odd", ODD_FILES)
@pytest.mark.parametrize("name", ["history.csv", "trials.jsonl", "certificate.json", "error.txt"])
def test_run_page_with_an_odd_file(name: str, odd: str, opened: Open, tmp_path: Path) -> None:
    folder = write(Store(tmp_path), record())
    in_place_of(folder / name, ODD_FILES[odd])
    app = opened(tmp_path, page="Run")
    assert not app.exception, app.exception
    assert [metric for metric in app.metric if metric.label == "miou"]


@pytest.mark.parametrize("odd", ODD_LINES)
def test_run_page_with_odd_trials_and_history(odd: str, opened: Open, tmp_path: Path) -> None:
    folder = write(Store(tmp_path), record())
    (folder / "trials.jsonl").write_text((ODD_LINES[odd] + "\n") * 12)
    (folder / "history.csv").write_text("step,loss,lr\n1,x,\n2,nan,1\n[],1e999,2\n")
    app = opened(tmp_path, page="Run")
    assert not app.exception, app.exception


def test_run_page_shows_history_and_trials(opened: Open, tmp_path: Path) -> None:
    folder = write(Store(tmp_path), record())
    (folder / "trials.jsonl").write_text('{"number": 0, "schedule": {"lr": 0.1, "decay": "poly"}, "val_miou": null}\n')
    (folder / "history.csv").write_text("step,loss,lr\n1,0.5,0.1\n2,0.4,0.1\n")
    app = opened(tmp_path, page="Run")
    assert {"Training loss", "Tuning"} <= {part.value for part in app.subheader}
    assert shown(app, "lr")["decay"].tolist() == ["poly"]


def test_run_page_shows_the_val_curve_of_newer_runs(opened: Open, tmp_path: Path) -> None:
    made = record()
    assert made.provenance is not None
    newer = made.model_copy(update={"provenance": made.provenance.model_copy(update={"val_frames": 12})})
    folder = write(Store(tmp_path), newer)
    path = folder / "history.csv"
    path.write_text("step,loss,lr,val_miou\n1,0.5,0.1,\n2,0.4,0.1,0.25\n3,0.4,0.1,\n4,0.4,0.1,0.3\n")
    app = opened(tmp_path, page="Run")
    assert not app.exception, app.exception
    assert {"Training loss", "Validation during training"} <= {part.value for part in app.subheader}
    assert "On val, 12 frames, not used for any choice: still rising at the last point." in texts(app)
    for text in ("step,loss,lr\n1,0.5,0.1\n", "step,loss,lr,val_miou\n1,0.5,0.1,\n"):
        path.write_text(text)
        app = opened(tmp_path, page="Run")
        assert not app.warning
        assert [part.value for part in app.subheader][:2] == ["Training loss", "Run it again"]


@pytest.mark.parametrize(
    ("points", "rises"),
    [([0.1, 0.2], True), ([0.1, 0.104], False), ([0.3, 0.2, 0.29], False), ([0.2, 0.1, 0.21], True), ([0.2], False)],
)
def test_a_curve_rises_if_its_last_point_is_clearly_the_highest(points: list[float], rises: bool) -> None:
    said = about_val(points, 16.0)
    assert said.startswith("On val, 16 frames, not used for any choice: ")
    assert ("still rising" in said) == rises
    assert ("not rising any more" in said) != rises


def test_the_charts_of_a_training_share_their_steps() -> None:
    from results.charts import history_chart, val_chart

    history = pd.DataFrame({"step": range(1, 51), "loss": 1.0, "val_miou": np.nan})
    history.loc[[24, 49], "val_miou"] = [0.2, 0.4]
    for chart in (history_chart(history), val_chart(history)):
        layers = chart.to_dict()["layer"]
        assert {tuple(layer["encoding"]["x"]["scale"]["domain"]) for layer in layers} == {(1, 50)}
    [rows] = val_chart(history).to_dict()["datasets"].values()
    assert rows == [{"step": 25, "val_miou": 0.2}, {"step": 50, "val_miou": 0.4}]


def store_of_three(folder: Path, **changes: object) -> Store:
    from examples import evidence

    store = Store(folder / "store")
    for number, source in enumerate(("none", "mine")):
        for i in range(3):
            made = record(i, 10 * number + i, source=source, cell=f"{number}" * 64, **changes)
            write_record(store, made, evidence(10 * number + i))
    return store


BAD_HISTORY = {
    "binary": b"\x00\xff\xfe" * 100,
    "empty": b"",
    "other columns": b"a,b\n1,2\n",
    "infinite": b"step,loss\n1,1e400\n",
    "huge number": b"step,loss\n1,1e30\n",
    "no number": b"step,loss\n1,x\n",
    "torn quotes": b'step,loss\n1,"2\n',
    "missing": b"step,loss\n1,\n",
    "huge file": b"step,loss\n" + b"1,2\n" * (2**23),
    "a point above one": b"step,loss,val_miou\n1,1,1.5\n",
    "an infinite point": b"step,loss,val_miou\n1,1,1e400\n",
    "a word for a point": b"step,loss,val_miou\n1,1,much\n",
    "only points": b"step,val_miou\n1,0.5\n",
    "whole number beyond all": b"step,loss\n" + b"9" * 400 + b",1\n",
}
NO_JSON = {
    "binary": b"\xff\xfe\x00",
    "torn": b'{"a": [1',
    "deep": b"[" * 100_000,
    "endless number": b'{"a": ' + b"9" * 5000 + b"}",
}
BAD_TRIALS = {name: data + b"\n{}\n" for name, data in NO_JSON.items()} | {
    "a list": b"[1]\n{}\n",
    "no schedule": b'{"val_miou": 0.1}\n{}\n',
    "a schedule of lists": b'{"schedule": {"lr": [1]}, "val_miou": 0.1}\n',
    "a word for a score": b'{"schedule": {"lr": 1}, "val_miou": "much"}\n',
    "not finite": b'{"schedule": {"lr": 1e400}, "val_miou": 0.1}\n',
    "mixed": b'{"schedule": {"lr": 1}, "val_miou": 0.1}\n{"schedule": {"lr": "a"}, "val_miou": 0.1}\n',
}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(pytest.param("history.csv", data, id=f"history, {kind}") for kind, data in BAD_HISTORY.items()),
        *(pytest.param("certificate.json", data, id=f"certificate, {kind}") for kind, data in NO_JSON.items()),
        *(pytest.param("trials.jsonl", data, id=f"trials, {kind}") for kind, data in BAD_TRIALS.items()),
    ],
)
def test_invalid_file_of_a_run_gives_one_warning(name: str, data: bytes, opened: Open, tmp_path: Path) -> None:
    store = store_of_three(tmp_path)
    for path in record_paths(store):
        (path.parent / name).write_bytes(data)
        other = "certificate.json" if name == "history.csv" else "history.csv"
        (path.parent / other).write_text("[]" if other == "certificate.json" else "step,loss,lr\n1,2,3\n2,1,3\n")
    app = opened(store.root, page="Run")
    assert not app.exception, app.exception
    assert [part.value.replace("\\", "") for part in app.warning] == [f"{name} cannot be read"]
    assert "Training loss" in [part.value for part in app.subheader] or name == "history.csv"
    assert "Run it again" in [part.value for part in app.subheader], "the rest of the page"
    assert str(tmp_path) not in texts(app)


def test_setting_names_that_clash_with_columns(opened: Open, tmp_path: Path) -> None:
    store = store_of_three(tmp_path)
    rows = [{"schedule": {"trial": i, "val_miou": "x", "index": i, "lr": i}, "val_miou": i / 20} for i in range(12)]
    for path in record_paths(store):
        (path.parent / "trials.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"schedule": {"tor')
    app = opened(store.root, page="Run")
    assert not app.exception, app.exception
    assert shown(app, "val_miou")["val_miou"].tolist() == [i / 20 for i in range(12)]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("settings", [[1], "text", None, 3, {"batch": {"\x1b": ["\u202e"]}}, {"a": float("1e300")}])
def test_settings_of_odd_types(settings: object, page: str, opened: Open, tmp_path: Path) -> None:
    app = opened(store_of_three(tmp_path, settings={"protocol": settings}).root, page=page)
    assert not app.exception, app.exception


@pytest.mark.parametrize("page", PAGES)
def test_a_record_of_odd_types_is_left_out(page: str, opened: Open, tmp_path: Path) -> None:
    store = store_of_three(tmp_path)
    path = record_paths(store)[0]
    held = json.loads(path.read_text())
    held["provenance"]["device"] = ["\x1b[31m"]
    path.write_text(json.dumps(held))
    app = opened(store.root, page=page)
    assert not app.exception, app.exception
    assert "1 records or submissions were left out" in app.expander[0].label
    assert str(tmp_path) not in texts(app)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("classes", [["source", "n", "source"], ["", "", "\n"], ["x" * 2000, "cell", "miou"]])
def test_class_names_that_clash_with_columns(classes: list[str], page: str, opened: Open, tmp_path: Path) -> None:
    app = opened(store_of_three(tmp_path, classes=classes).root, page=page, classes="true")
    assert not app.exception, app.exception


def test_source_names_that_clash_with_pictures(opened: Open, tmp_path: Path) -> None:
    from examples import evidence

    store, rng = Store(tmp_path), np.random.default_rng(0)
    labels = {name: rng.integers(0, 3, (40, 50), dtype=np.uint8) for name in ("fine", "float", "deep")}
    odd = labels | {"float": labels["float"].astype(float), "deep": labels["deep"][None]}
    for number, source in enumerate(("truth", "image")):
        for i in range(3):
            made = record(i, number * 10 + i, source=source, cell=f"{number}" * 64, classes=["a\nb", "c", "d"])
            write_record(store, made, evidence(number * 10 + i))
            path = prediction_samples.predictions_file(store, made.run)
            path.parent.mkdir(parents=True)
            np.savez(path, ids=np.array(list(odd)), **{f"p{k}": v for k, v in enumerate(odd.values())})
    for path in prediction_samples.truth_files(store, "t" * 64, "p" * 64):
        prediction_samples.write(path, labels)
    app = opened(store.root, page="Images")
    assert not app.exception, app.exception
    captions = [part.proto.imgs[0].caption for part in app.get("image") if part.proto.imgs[0].caption]
    assert sorted(captions) == ["difference", "image", "image", "truth", "truth"]
    assert "fine: difference in mIoU" in texts(app)
    assert "deep: difference" not in texts(app)


# -- submissions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_marks_submissions(page: str, ranked: bool, opened: Open, tmp_path: Path) -> None:
    from examples import as_submission

    store = store_of_three(tmp_path, ranked=ranked)
    as_submission(store, "mine")
    app = opened(store.root, page=page, source="mine", search="mine")
    assert not app.exception, app.exception
    page_text = texts(app) + "".join(
        str([*table.value.columns, *table.value.to_numpy().ravel()]) for table in app.dataframe
    )
    config = "".join(part.proto.columns for part in app.dataframe)
    assert "submitted" in page_text.lower() + config
    assert "recomputed" in page_text
    if page == "Leaderboard":
        assert shown(app, "badges")["badges"].tolist() == [["submitted, recomputed"]]


# -- inconsistent records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("fault", ["other classes", "evidence that is none"])
def test_inconsistent_records_of_one_board(fault: str, page: str, opened: Open, tmp_path: Path) -> None:
    from examples import evidence

    from results import metrics
    from results.evidence import sha256

    store = store_of_three(tmp_path)
    for i in range(3):
        proof = evidence(50 + i, classes=5)
        changes: dict[str, Any] = {"classes": list("abcde"), "scores": metrics.scores(proof)}
        changes = changes if fault == "other classes" else {}
        data = proof.to_bytes() if changes else b"none"
        made = record(i, source="other", cell="9" * 64, **changes).model_copy(update={"evidence_sha256": sha256(data)})
        folder = store.folder_of(made)
        folder.mkdir(parents=True)
        (folder / "evidence.npz").write_bytes(data)
        (folder / "record.json").write_text(made.model_dump_json())
    for words in ({}, {"classes": "true", "a": "other", "b": "none"}, {"a": "none", "b": "other"}):
        app = opened(store.root, page=page, **words)
        assert not app.exception, app.exception
        assert str(tmp_path) not in texts(app)


def test_submission_is_never_the_first_board(tmp_path: Path) -> None:
    """Its times are not trusted."""
    store = store_of_three(tmp_path / "store")
    cells = board(runs_frame(store))
    other = cells.assign(protocol="other", finished="9999-01-01", badge="recomputed")
    assert next(iter(filters._boards(pd.concat([cells, other])))).endswith(cells["protocol"].iloc[0])


def test_the_first_board_is_the_one_with_most_complete_cells(filled: Path) -> None:  # noqa: F811
    """A sweep that has just begun does not hide the one that is complete."""
    cells = board(load_table(filled))
    begun = cells.iloc[:1].assign(protocol="begun", finished="2999-01-01T00:00:00+00:00")
    partial = cells.assign(protocol="partial", finished="2999-01-01T00:00:00+00:00", status="partial")
    names = [name.split(" · ")[1] for name in filters._boards(pd.concat([begun, cells, partial]))]
    assert names == [cells["protocol"].iloc[0], "begun", "partial"]
    for name in ("0", "~"):  # before and after the other in any order of names
        again = cells.assign(protocol=name, finished="2999-01-01T00:00:00+00:00")
        assert next(iter(filters._boards(pd.concat([cells, again])))).endswith(f" {name}"), "of equals, the newest"
