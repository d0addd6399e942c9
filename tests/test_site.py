"""The static site of `bench report`: pages and links, what is replaced or refused, and in a browser without a network."""

import json
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import Bench
from examples import cell, store_of
from selenium import webdriver
from selenium.webdriver.common.by import By
from test_browser import browser, downloads, external_requests, faults, wait  # noqa: F401 - two are fixtures

from bench.cli.site import write
from bench.cli.site.names import pages
from bench.cli.site.tables import number
from bench.cli.site.write import write_site
from results import load_table
from results.board import board
from results.store import Store, StoreError

SHIPPED = Path(__file__).parents[1] / "results" / "runs"
MOST_BYTES, MOST_BYTES_PER_RUN = 12 * 10**5, 33_000
LINK = re.compile(r'(?:href|src)="([^"]*)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the results that ship."""
    out = tmp_path_factory.mktemp("site") / "site"
    write_site(Store(SHIPPED, cache=tmp_path_factory.mktemp("cache")), out)
    return out


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites without the scripts of the figures, which take seconds to make."""
    monkeypatch.setattr(write, "vega", lambda: "")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_board_source_and_run_has_a_page_and_links_resolve(site: Path) -> None:
    runs = load_table(SHIPPED)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert size <= MOST_BYTES + MOST_BYTES_PER_RUN * len(runs)
    assert {path.stem for path in (site / "runs").iterdir()} == {run[:12] for run in runs["run"]}
    assert len(list((site / "sources").iterdir())) == runs["source"].nunique()
    reached, waiting = set[Path](), [site / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for link in LINK.findall(path.read_text()) if path.suffix == ".html" else []:
            if link != "data:,":
                there = (path.parent / unquote(link)).resolve()
                assert there.is_file(), f"{path}: {link}"
                waiting.append(there)
    assert {path.relative_to(site).as_posix() for path in reached} == tree(site).keys()


def test_the_numbers_are_those_of_the_board(site: Path) -> None:
    rows = board(load_table(SHIPPED)).to_dict("records")
    texts = {path.stem: path.read_text() for path in (site / "boards").iterdir()}
    assert texts.keys() >= {f"{row['target']}--{row['protocol']}" for row in rows}
    for row in rows:
        text = texts[f"{row['target']}--{row['protocol']}"]
        cells = text.split('<section id="cells">')[1].split("</table>")[0]
        if row["status"] == "skipped":
            assert f"{row['source']} x {row['backbone']}: {escape(row['reason'])}" in text
        else:
            assert f'data-v="{row["miou"]}">{row["miou"]:.4f}<' in cells


def test_names_are_unique_on_any_file_system() -> None:
    found = pages("sources", {name: name for name in ("a/b", "a--b", "c", "C", "x" * 300, "plain~shuffled")})
    assert len({address.lower() for address in found.values()}) == 6
    assert found["plain~shuffled"] == "sources/plain~shuffled.html"
    assert all(re.fullmatch(r"sources/[A-Za-z0-9._+~-]{1,100}\.html", address) for address in found.values())


@pytest.mark.usefixtures("light")
def test_an_older_site_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "site"
    first = store_of(tmp_path / "one", cell("none", "a", range(3)), cell("gone", "b", range(3)))
    write_site(first, out)
    before = tree(out)
    assert "sources/gone.html" in before
    second = store_of(tmp_path / "two", cell("none", "a", range(3)))
    with monkeypatch.context() as broken:
        broken.setattr(write, "run_page", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
            write_site(second, out)
    assert tree(out) == before
    write_site(second, out)
    assert "sources/gone.html" not in tree(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "site", "two"], "nothing is left beside it"


@pytest.mark.usefixtures("light")
def test_a_store_without_runs_has_a_site(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    assert bench("report", "--out", tmp_path / "out", "--store", tmp_path / "empty").code == 0
    assert "No runs in this store yet" in (tmp_path / "out/index.html").read_text()


@pytest.mark.usefixtures("light")
def test_what_holds_for_a_whole_board_is_said_once(tmp_path: Path) -> None:
    cells = cell("none", "a", range(3), ranked=False), cell("imagenet", "b", range(3), ranked=False)
    store = store_of(tmp_path / "s", *cells)
    write_site(store, tmp_path / "site")
    for page in (tmp_path / "site" / "index.html", *(tmp_path / "site" / "boards").iterdir()):
        assert page.read_text().count("TOO SHORT TO RANK ANYTHING") == 1


def test_a_score_that_rounding_left_below_zero_is_zero() -> None:
    assert number(-9.4e-15).text == "0.0000"


@pytest.mark.usefixtures("light")
def test_what_is_not_a_site_is_refused_in_one_line(tmp_path: Path, bench: Bench) -> None:
    store = store_of(tmp_path / "store", cell("none", "a", range(3)))
    file, other, mixed = tmp_path / "file", tmp_path / "other", tmp_path / "mixed"
    file.write_text("mine")
    other.mkdir()
    (other / "index.html").write_text("<html>mine")
    write_site(store, mixed)
    (mixed / "CNAME").write_text("bench.example.org")
    for out, why in (
        (file, "is a file"),
        (other, "holds index.html, which is not of a site"),
        (mixed, "holds CNAME, which is not of a site"),
        (file / "below", "file is a file"),
        (Path("/proc/site"), "cannot write /proc/site: No such file or directory"),
        (store.root, "holds .*, which is not of a site"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = bench("report", "--out", out, "--store", store.root)
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert re.search(f"^bench: .*{why}", done.err), done.err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    done = bench("report", "--out", tmp_path / "new", "--store", tmp_path / "nowhere")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert not (tmp_path / "new").exists()


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:  # noqa: F811
    """The browser without a network."""
    browser.execute_cdp_cmd("Network.enable", {})
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    yield browser
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off | {"offline": False})


def sources_shown(driver: webdriver.Chrome) -> list[str]:
    """Return the sources in the visible rows of the table of cells, in order."""
    rows = "return [...document.querySelectorAll('table[data-name=cells] tbody tr')].filter(row => !row.hidden)"
    shown: list[str] = driver.execute_script(f"{rows}.map(row => row.querySelector('a').textContent)")
    return shown


def test_sort_filter_and_links_without_a_network(offline: webdriver.Chrome, site: Path) -> None:
    page = site / "boards" / "buffalo-udder--udder-v1.html"
    external_requests(offline, "")  # discard those of other pages
    offline.get(page.as_uri())
    usual = sources_shown(offline)
    offline.find_element(By.CSS_SELECTOR, "table[data-name=cells] th[data-key=source] button").click()
    assert sources_shown(offline) == sorted(usual) != usual
    offline.find_element(By.CSS_SELECTOR, "table[data-name=cells] th[data-key=miou] button").click()
    cells = board(load_table(SHIPPED)).query("target == 'buffalo-udder'")
    by_score = cells.sort_values("miou", ascending=False)["source"].tolist()
    assert sources_shown(offline) == by_score, "numbers begin with the largest"
    offline.find_element(By.CSS_SELECTOR, "#cells input[type=search]").send_keys("satir tiny")
    left = [name for name in by_score if "tiny" in name]
    assert sources_shown(offline) == left
    address = offline.current_url
    assert "cells.sort=-miou" in address
    offline.get("about:blank")
    offline.get(address)
    assert sources_shown(offline) == left, "the link shows the same"
    wait(lambda: offline.find_elements(By.CSS_SELECTOR, "figure svg.marks"))
    offline.find_element(By.LINK_TEXT, left[0]).click()
    assert offline.find_element(By.TAG_NAME, "h1").text == left[0]
    assert not external_requests(offline, "file://")
    assert not faults(offline)


def test_hostile_names_stay_texts(offline: webdriver.Chrome, tmp_path: Path) -> None:
    name = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    write_site(
        store_of(tmp_path / "store", cell(name, "a", range(3)), cell("none", "b", range(3, 6))), tmp_path / "site"
    )
    for path in sorted((tmp_path / "site").rglob("*.html"))[:6]:
        offline.get(path.as_uri())
        count = len(offline.find_elements(By.TAG_NAME, "figure"))
        for figure in offline.find_elements(By.TAG_NAME, "figure"):
            offline.execute_script("arguments[0].scrollIntoView()", figure)
        wait(lambda count=count: len(offline.find_elements(By.CSS_SELECTOR, "figure svg.marks")) >= count)  # type: ignore[misc]
        assert "owned" not in offline.title.replace(name, "")
        assert not offline.find_elements(By.CSS_SELECTOR, "img[src=x]")
        assert not faults(offline)
    assert json.loads((tmp_path / "site/index.html").read_text().split('application/json">')[1].split("</script>")[0])
    shutil.rmtree(tmp_path / "site")
