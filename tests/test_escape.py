"""Untrusted text: one hostile string in every field of a store, checked in every output format."""

import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Bench
from examples import evidence, record, record_paths
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console
from streamlit.testing.v1 import AppTest
from test_dashboard import PAGES, Open, opened  # noqa: F401 - opened is a fixture

from bench.cli import progress
from results import escape, known_leaks, prediction_samples
from results.evidence import Evidence, sha256
from results.record import RunRecord
from results.record_files import write_record
from results.store import Store

HOSTILE = (
    "=cmd()|\x1b[31mred\x1b]8;;http://x.invalid\x07link\x1b]8;;\x07\x9b2J\x7f \u202egnp\u2066\r\u2028\x85"
    "\n# <script>alert(1)</script>\n\\input{/etc/passwd}%&#{} `code` $x$ **b** :red[x] :material/bug: ![x](http://x.invalid/y.png)"
)
ONE_WORD = "=cmd()|<script>\\input{/x}`$x$:red[x]![x](http://x.invalid/y.png)"  # usable in a claim
SCRIPT = '<script src="../assets/{}.js" defer>'  # of the pages of a site
LONG = HOSTILE + "long" * 400  # a record allows 2,000 characters; 1,000 are shown
HASHES = {"t": "t" * 64, "p": "p" * 64}


def proof(seed: int, name: str) -> Evidence:
    """Return evidence whose images and groups have hostile names."""
    made = evidence(seed, images=6)
    ids, groups = (np.array([f"{name}{part}{i}" for i in range(6)]) for part in ("image", "group"))
    return Evidence(ids, groups, made.confusion, made.weighted_f)


def fill(folder: Path, text: str, word: str, long: str) -> Store:
    """Create a store with `text` in every text field: three sources, a failed cell and a leaking one."""
    store = Store(folder / "store")
    nothing = dict.fromkeys(("scores", "tuning", "provenance", "evidence_sha256"))
    cells: list[tuple[str, dict[str, Any]]] = [
        (f"{text}/n-10", {}),
        (word, {}),
        ("none", {}),
        (f"{text}/failed", {"status": "failed", "reason": long, **nothing}),
        (f"{text}/leaking", {"leak": long}),
    ]
    for number, (source, changes) in enumerate(cells):
        for replicate in range(3):
            made = record(replicate, seed=10 * number + replicate, source=source, cell=f"{number}" * 64)
            run = proof(10 * number + replicate, text)
            write_record(store, _renamed(made, run, text, long, **changes), None if changes.get("status") else run)
            if not changes.get("status"):
                pictures = {f"{text}image0": np.zeros((40, 50), np.uint8)}
                prediction_samples.write(prediction_samples.predictions_file(store, made.run), pictures)
    for path in prediction_samples.truth_files(store, HASHES["t"], HASHES["p"]):
        prediction_samples.write(path, pictures)
    _leave_files(store, text)
    near = {f"{text}image0": known_leaks.Near(image=text, similarity=0.9, how=text)}
    counts: dict[str, Any] = {
        "image_count": 5,
        "test_images": 6,
        "threshold": 0.8,
        "expected_false_alarms": 0.1,
        "unreadable": 0,
    }
    texts: dict[str, Any] = {
        "target": text,
        "target_hash": HASHES["t"],
        "images": text,
        "notes": [text],
        "checked": text,
    }
    known_leaks.write(store, known_leaks.LeakFinding(source=f"{text}/n-10", touched=near, **counts, **texts))
    _leave_plan(store, text)
    broken = store.root / "a" / "b" / re.sub("[/\0]", "", text) / "c" / "r0-1"
    broken.mkdir(parents=True)
    (broken / "record.json").write_text("{")
    return store


def _renamed(made: RunRecord, run: Evidence, text: str, long: str, **changes: Any) -> RunRecord:
    fields = made.model_dump() | dict.fromkeys(("target", "protocol", "result_version", "backbone", "weights"), text)
    fields |= {"label_note": long, "classes": [text, "car", f"{text}2"], "evidence_sha256": sha256(run.to_bytes())}
    fields |= {"settings": {"protocol": {text: text}}}
    fields["provenance"] |= dict.fromkeys(("version", "commit", "device", "precision"), text)
    fields["provenance"]["packages"] = {text: text}
    fields["tuning"]["schedule"] = {text: text}
    return RunRecord.model_validate(fields | changes)


def _leave_files(store: Store, text: str) -> None:
    for folder in (path.parent for path in record_paths(store)):
        (folder / "certificate.json").write_text(json.dumps({text: [text]}))
        rows = [{"schedule": {"lr": i / 10, text: text}, "val_miou": i / 20} for i in range(12)]
        (folder / "trials.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "history.csv").write_text('step,loss,"' + text.replace('"', "") + '"\n1,2,3\n2,1,3\n')
        (folder / "error.txt").write_text(f"Traceback\n{text}\n")


def _leave_plan(store: Store, text: str) -> None:
    run, cell = sha256(b"planned"), sha256(b"cell")
    expected = {"target": text, "protocol": text, "source": text, "backbone": text, "train_frac": 1.0}
    expected |= {"target_hash": "", "result_version": text, "weights": text, "settings": {text: text}}
    units = {run: {"kind": "final", "unit": text, "needs": []}}
    path = store.root / "plans" / "m.json.gz"
    path.parent.mkdir(parents=True)
    plan = {"cells": [{"cell": cell, "expected": expected, "runs": [run]}], "units": units}
    path.write_bytes(gzip.compress(json.dumps(plan).encode()))
    folder = store.unit_dir("final", run)
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text(json.dumps({"status": "failed", "reason": text}))
    (folder / "log.txt").write_text(re.sub(r"\s", " ", text))  # the log has one line
    (folder / "progress.json").write_text(json.dumps({"unit": text, "done": 1, "total": 2, "since": text}))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("hostile"), HOSTILE, ONE_WORD, LONG)


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same store with harmless text; its output has the same number of lines."""
    return fill(tmp_path_factory.mktemp("benign"), "zsome", "word", "note")


# -- checks of each format -------------------------------------------------------------------------------------


def is_shown(text: str) -> None:
    """Check that the text has no control characters, extra line ends or bidirectional controls."""
    assert all(c.isprintable() or c == "\n" for c in text), [c for c in text if not c.isprintable() and c != "\n"][:5]


def is_plain_markdown(text: str) -> None:
    """Check that the Markdown renders as text in lists and tables, without links, images or scripts."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    tags = set(re.findall(r"<(\w+)", html)) - {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert not tags, tags
    assert not re.search(r"(?<!\\)\$", text), "mathematics on GitHub"


FORMULA = tuple("=+-@\t\r")


def is_plain_csv(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        is_shown(cell)
        assert "\n" not in cell
        try:
            float(cell)
        except ValueError:
            assert not cell.lstrip().startswith(FORMULA), cell


def is_plain_latex(text: str) -> None:
    without = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", text)
    commands = set(re.findall(r"\\[a-zA-Z]+", without))
    assert commands <= {"\\begin", "\\end", "\\hline"}, commands
    for line in without.splitlines():
        if not line.startswith("%"):
            assert not re.search(r"(?<!\\)[$#%^_~]", line), line


class Tags(HTMLParser):
    """Collect the tags of a page and the URLs in them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses |= {value for name, value in attrs if name in ("src", "href", "xlink:href")}


# -- the functions -----------------------------------------------------------------------------------------------------


def test_unprintable_characters_are_escaped() -> None:
    shown = escape.for_terminal("a\x1b[0m\n\t\u202eb\u2028\x85\udcff\x7f")
    assert shown == r"a\x1b[0m\n\t\u202eb\u2028\x85\udcff\x7f"
    assert escape.for_terminal("Frühling × 95 % ≥ 'x' \\n") == "Frühling × 95 % ≥ 'x' \\n"


def test_long_text_is_shortened() -> None:
    for form in (escape.for_terminal, escape.for_markdown, escape.for_latex, escape.for_html, escape.for_streamlit):
        shown = form("a" * 2500 + "b" * 2500)
        assert re.fullmatch(r"a+\\?\.\\?\.\\?\. \\?\(5,000 characters\\?\) \\?\.\\?\.\\?\.b+", shown), shown
        assert len(shown) < escape.LONGEST + 50
    assert escape.for_terminal("a" * escape.LONGEST) == "a" * escape.LONGEST


@pytest.mark.parametrize(
    "text", [HOSTILE, ONE_WORD, LONG, "# x", "- x", "1. x", "~~~ x", "~a~ ~~b~~", "    x", "_a_ __b__"]
)
def test_markdown_renders_as_the_text(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(escape.for_markdown(text))
    assert set(re.findall(r"<(\w+)", html)) == {"p"}
    shown = html.strip().removeprefix("<p>").removesuffix("</p>")
    for written, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(written, sign)
    assert shown.strip() == escape.for_terminal(text).strip()


def test_markdown_keeps_names_and_numbers() -> None:
    for text in ("satir/sam-tiny~shuffled", "weighted_f", "+0.0155", "-", "0.338..0.387", "95 %", "p < 0.001", "a > b"):
        assert escape.for_markdown(text) == text


def test_latex_cell_is_not_an_option_of_the_previous_row() -> None:
    assert escape.for_latex("[x]") == "{[}x{]}"
    assert escape.for_latex("*") == "{*}"
    assert escape.for_latex(r"\input{/etc/passwd}") == r"\textbackslash{}input\{/etc/passwd\}"


def test_numbers_stay_numbers_in_csv() -> None:
    frame = pd.DataFrame(
        {"a": [-1.5, np.nan], "b": ["-0.5", "-x"], "=c": ["@a", None], "d": pd.array([1, None], "Int64")}
    )
    frame.insert(4, "a", [[1], [2]], allow_duplicates=True)
    assert escape.for_csv(frame).splitlines() == ["a,b,'=c,d,a (2)", "-1.5,-0.5,'@a,1,[1]", ",'-x,,,[2]"]
    assert escape.for_csv(pd.DataFrame(columns=["x"])) == "x\n"


def test_streamlit_shows_no_markup() -> None:
    shown = escape.for_streamlit("see :material/bug: :streamlit: http://x.invalid www.x.invalid a@b.cd")
    for taken in (":material/", ":streamlit:", "http:", "http\\:", "www.", "www\\.", "a@", "a\\@"):
        assert taken not in shown
    assert "`:`" in shown


def test_json_is_lossless_and_has_no_control_characters() -> None:
    made = escape.for_json({"a": HOSTILE, "b": [1.5, None]})
    is_shown(made)
    assert made.isascii()
    assert json.loads(made) == {"a": HOSTILE, "b": [1.5, None]}


# -- the command line --------------------------------------------------------------------------------------------------

ASKED = {
    "board": ["table"],
    "tiers": ["table", "--tiers"],
    "classes": ["table", "--per-class"],
    "tuning": ["table", "--tuning"],
}
CHECKS: dict[str, Callable[[str], None]] = {
    "table": is_shown,
    "md": is_plain_markdown,
    "latex": is_plain_latex,
    "csv": is_plain_csv,
    "json": json.loads,
}


@pytest.mark.parametrize("form", CHECKS)
@pytest.mark.parametrize("view", ASKED)
def test_every_table_in_every_format(view: str, form: str, hostile: Store, benign: Store, bench: Bench) -> None:
    shown, plain = (bench(*ASKED[view], "--format", form, "--store", store.root) for store in (hostile, benign))
    assert (shown.code, plain.code) == (0, 0), shown.err + plain.err
    is_shown(shown.out + shown.err)
    CHECKS[form](shown.out)
    assert len(shown.out.split("\n")) == len(plain.out.split("\n"))
    assert "<script" not in shown.out or form in ("table", "json", "csv")
    assert "long" * 400 not in shown.out or form in ("json", "csv")
    if form == "json":
        assert any(HOSTILE in text for text in _strings(json.loads(shown.out)))


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "*"],
        ["compare", ONE_WORD, "none", "--per-class"],
        ["claim", f"{ONE_WORD} > none"],
        ["scaling", "--source", "none", "--axis", "train_fraction"],
    ],
    ids=lambda words: " ".join(word for word in words if word.isalnum() or word == "*"),
)
def test_every_command(words: list[str], hostile: Store, benign: Store, bench: Bench) -> None:
    plain = [word.replace(HOSTILE, "zsome").replace(ONE_WORD, "word") for word in words]
    shown, plain_shown = bench(*words, "--store", hostile.root), bench(*plain, "--store", benign.root)
    assert shown.code == plain_shown.code, shown.err + plain_shown.err
    is_shown(shown.out + shown.err)
    assert len(shown.out.split("\n")) == len(plain_shown.out.split("\n")), shown.out
    assert "long" * 400 not in shown.out + shown.err


@pytest.mark.parametrize("words", [["compare", f"{HOSTILE}/n-10", "none"], ["scaling", "--source", HOSTILE]])
def test_unprintable_name_is_rejected(words: list[str], hostile: Store, bench: Bench) -> None:
    result = bench(*words, "--store", hostile.root)
    assert (result.code, result.out) == (1, "")
    assert "contains unprintable characters" in result.err
    is_shown(result.err)


@pytest.mark.parametrize("words", [["status", "--json"], ["status", "*", "--json"]])
def test_json_of_status(words: list[str], hostile: Store, bench: Bench) -> None:
    shown = bench(*words, "--store", hostile.root).out
    is_shown(shown)
    assert any(HOSTILE in text for text in _strings(json.loads(shown)))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *_strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def test_claims_of_a_file(hostile: Store, bench: Bench, tmp_path: Path) -> None:
    entry = {"claim": f"{ONE_WORD} > none", "expect": "not shown"}
    torn = {"claim": "none > nobody", "expect": "supported"}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([entry, torn]))
    for form, holds in (("text", is_shown), ("md", is_plain_markdown)):
        shown = bench("claim", "--file", tmp_path / "claims.yaml", "--format", form, "--store", hostile.root)
        is_shown(shown.out)
        holds(shown.out)
        assert "<script" not in shown.out or form == "text"


def test_the_report(hostile: Store, bench: Bench, tmp_path: Path) -> None:
    assert bench("report", "--out", tmp_path / "r", "--store", hostile.root).code == 0
    pages = sorted((tmp_path / "r").rglob("*.html"))
    assert len(pages) == 1 + 1 + 5 + 15, "the first page, a board, its sources and its runs"
    for path in pages:
        page = path.read_text()
        is_shown(page)
        tags = Tags()
        tags.feed(page)
        assert not tags.tags & {"img", "iframe", "object", "base", "image", "style"}
        scripts = {found.replace('"assets', '"../assets') for found in re.findall(r"<script[^>]*>", page)}
        assert scripts <= {'<script type="application/json">', *(SCRIPT.format(name) for name in ("vega", "site"))}
        for figure in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL):
            assert json.loads(figure)["config"], "a text does not end the script"
        addresses = {name for name in tags.addresses if name and name != "data:,"}
        assert all((path.parent / name).is_file() for name in addresses), addresses
        assert "long" * 400 not in page
        assert str(hostile.root.parent) not in page, "local path"
    is_plain_csv((tmp_path / "r" / "runs.csv").read_text())


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "a\nbench: all is well", "\u202egnp", "x" * 5000, "\udcff"])
@pytest.mark.parametrize(
    "words",
    [
        ["compare", "NAME", "none"],
        ["claim", "NAME > none"],
        ["claim", "NAME"],
        ["scaling", "--source", "NAME"],
        ["status", "NAME"],
        ["run", "--matrix", "NAME"],
        ["run", "--matrix", "demo", "--source", "NAME"],
        ["data", "check", "NAME"],
        ["corpus", "check", "NAME"],
        ["corpus", "make", "--pool", "NAME", "--out", "x"],
        ["submit", "check", "NAME"],
        ["submit", "verify", "NAME"],
        ["leaks", "--source", "NAME", "--target", "scenes"],
        ["table", "--backbone", "NAME"],
        ["table", "--store", "NAME"],
        ["ls", "--data", "NAME"],
        ["NAME"],
        ["table", "--NAME"],
        ["table", "--format", "NAME"],
    ],
    ids=" ".join,
)
def test_an_error_that_quotes(words: list[str], name: str, hostile: Store, bench: Bench) -> None:
    store = (
        ()
        if "--store" in words or words[0] in ("ls", "data", "corpus", "NAME", "submit")
        else ("--store", hostile.root)
    )
    result = bench(*(word.replace("NAME", name) for word in words), *store)
    is_shown(result.out + result.err)
    assert "Traceback" not in result.err
    assert "x" * (escape.LONGEST + 1) not in result.out + result.err
    assert not re.search("^bench: all is well", result.err, re.MULTILINE)


def hostile_folder(tmp_path: Path) -> Path:
    return tmp_path / "\x1b[31m\u202e:smile:[red]x\nbench: all is well\udcff"


def test_files_with_such_names(bench: Bench, tmp_path: Path) -> None:
    corpus = hostile_folder(tmp_path)
    for part in ("images", "labels"):
        (corpus / part).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((40, 40), i % 2, np.uint8)).save(corpus / part / f"a{i}.png")
    for result in (
        bench("corpus", "check", corpus),
        bench("submit", "check", corpus),
        bench("submit", "verify", corpus),
    ):
        is_shown(result.out + result.err)
        assert not re.search("^bench: all is well", result.out + result.err, re.MULTILINE)
    shutil.copyfile(corpus / "images" / "a0.png", corpus / "images" / "\x1b[31m.png")
    result = bench("corpus", "check", corpus)
    is_shown(result.out + result.err)


def test_faults_of_a_card_and_of_a_verdict(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    card = {
        "name": HOSTILE,
        "description": HOSTILE,
        HOSTILE: HOSTILE,
        "checkpoints": [{"path": HOSTILE, "backbones": [HOSTILE]}],
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    for words in (["submit", "check", folder], ["leaks", "--source", folder, "--target", "scenes"]):
        result = bench(*words)
        assert result.code == 1
        is_shown(result.out + result.err)
    (folder / "bundle.json").write_text(json.dumps({"name": HOSTILE, "files": {HOSTILE: HOSTILE}}))
    result = bench("submit", "verify", folder)
    is_shown(result.out + result.err)


class Named(str):
    """A hostile name of a cell and of its source."""

    @property
    def source(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Made:
    """A unit with a hostile name."""

    cell: str
    fingerprint: str = "f"
    kind: str = "tune"

    def __str__(self) -> str:
        return self.cell


@pytest.mark.parametrize("terminal", [False, True])
def test_the_live_display(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    options = {"file": output, "force_terminal": terminal, "width": 4000, "color_system": None}
    monkeypatch.setattr(progress, "work_of", lambda unit, target: 10)
    monkeypatch.setattr(progress, "Console", lambda **how: Console(**how | options))
    text = f"[red]x[/red] :smile: [/] {HOSTILE}"
    unit: Any = Made(text)
    matrix: Any = SimpleNamespace(name=text, protocol=SimpleNamespace(name=text), cells=[])
    plan: Any = SimpleNamespace(todo=[unit], finals=[], skipped=[(Made(Named(text)), text)], count=lambda *_: 1)
    target: Any = SimpleNamespace(spec=SimpleNamespace(name=text), notes=[text])
    shown = progress.Watch(matrix, Path(text))
    with shown.display():
        shown.noted(text)
        shown.checking(text, 1, 500)
        shown.planned(plan, target)
        shown.started(unit)
        shown.progress(unit, 2, 10, loss=1.0)
        shown.finished(unit, "failed", text)
    shown.closing(plan)
    with progress.counting(text, "images") as report:
        report(1, 2)
    out = output.getvalue()
    assert out.count("[red]x[/red] :smile: [/]") >= 8
    assert r"\x1b[31mred" in out
    is_shown(re.sub(r"\x1b\[(\?25[lh]|[0-9]*[A-K])|\r", "", out) if terminal else out)  # rich's own cursor movements


# -- the dashboard -----------------------------------------------------------------------------------------------------


def shown_of(app: AppTest) -> Iterator[tuple[str, str]]:  # noqa: C901 - one case per element
    """Yield (kind, text) for everything on a page."""
    for kind in ("markdown", "caption", "info", "warning", "error", "title", "subheader"):
        for part in app.get(kind):
            yield "markdown", part.value  # type: ignore[union-attr]
    for part in [*app.text, *app.code]:
        yield "text", part.value
    for part in [*app.selectbox, *app.multiselect]:
        for option in part.options:
            yield "text", option
    for part in app.expander:
        yield "markdown", part.label
    for part in app.json:
        for inner in _strings(json.loads(part.value)):
            yield "text", inner
    for part in app.dataframe:
        for cell in (*part.value.columns, *part.value.to_numpy().ravel()):
            for one in cell if isinstance(cell, list) else [cell]:
                if isinstance(one, str):
                    yield "cell", one
    for part in app.get("vega_lite_chart"):
        for inner in _strings(json.loads(part.proto.spec)):
            yield "text", inner
        for data in part.proto.datasets:
            from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

            for cell in convert_arrow_bytes_to_pandas_df(data.data.data).to_numpy().ravel():
                if isinstance(cell, str):
                    yield "text", cell
    for part in app.get("image"):
        for image in part.proto.imgs:
            yield "markdown", image.caption


def is_plain_page(app: AppTest, store: Store) -> None:
    assert not app.exception, app.exception
    for kind, text in shown_of(app):
        is_shown(text)
        assert "long" * 400 not in text
        assert str(store.root.parent) not in text, "local path"
        if kind == "markdown":
            html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
            tags = set(re.findall(r"<(\w+)", html)) - {"p", "strong", "code"}
            assert not tags, (tags, text)
            assert not re.search(r"(?<!\\):\w+\[|:material/|:streamlit:|(?<!\\)\$", text), text
        if kind == "cell":
            assert not text.startswith(FORMULA), text


@pytest.mark.parametrize("page", PAGES)
def test_every_page(page: str, opened: Open, hostile: Store) -> None:  # noqa: F811
    share = {"axis": "share of the target's labels", "source": "none"}
    for words in ({}, {"search": HOSTILE}, {"classes": "true"}, share):
        is_plain_page(opened(hostile.root, page=page, **words), hostile)


@pytest.mark.parametrize("page", PAGES)
def test_url_parameters_are_untrusted(page: str, opened: Open, hostile: Store) -> None:  # noqa: F811
    names = (
        "board",
        "metric",
        "labels",
        "backbone",
        "family",
        "search",
        "a",
        "b",
        "on",
        "axis",
        "source",
        "run",
        "classes",
    )
    is_plain_page(opened(hostile.root, page=page, **dict.fromkeys(names, LONG)), hostile)
    app = opened(hostile.root, **dict.fromkeys(("page", *names), LONG))
    is_plain_page(app, hostile)


def test_the_downloads_of_a_page(opened: Open, hostile: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from dashboard import widgets

    made: list[bytes] = []
    monkeypatch.setattr(widgets, "_download", lambda kind, name, make: made.append(make()) if kind == "CSV" else None)
    for page in PAGES:
        opened(hostile.root, page=page, classes="true")
    assert len(made) > 3
    for data in made:
        is_plain_csv(data.decode())
