"""The dashboard in headless Chromium."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import Bench
from elsewhere import fill
from examples import evidence, record
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from test_dashboard import PAGES
from test_questions import filled  # noqa: F401 - a fixture
from test_schedule_boards import fill as fill_both

from results.record_files import write_record
from results.store import Store

PATIENCE_S = 90.0
HARMLESS = ("favicon",)

Serve = Callable[[Path], str]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "window-size=1280,2400"):
        options.add_argument(f"--{word}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Start `bench dashboard` on a store; return its URL."""
    running: dict[Path, tuple[subprocess.Popen[bytes], str]] = {}

    def start(store: Path) -> str:
        if store not in running:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                port = free.getsockname()[1]
            bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            words = [str(bench), "dashboard", "--store", str(store), "--port", str(port), "--no-browser"]
            running[store] = subprocess.Popen(words, stdout=subprocess.DEVNULL), f"http://localhost:{port}"
            wait(lambda: healthy(running[store][1]))
        return running[store][1]

    yield start
    for process, _ in running.values():
        process.terminate()
        process.wait()


def healthy(address: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"{address}/_stcore/health").read())
    return False


def wait(until: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def text(browser: webdriver.Chrome) -> str:
    with contextlib.suppress(StaleElementReferenceException):
        return browser.find_element(By.TAG_NAME, "body").text
    return ""


def drawn(browser: webdriver.Chrome, address: str, title: str) -> None:
    """Open a URL and wait until its page is drawn."""
    browser.get(address)
    wait(lambda: title in text(browser) and not browser.find_elements(By.CSS_SELECTOR, '[data-stale="true"]'))
    wait(lambda: not browser.find_elements(By.CSS_SELECTOR, '[data-testid="stStatusWidget"]'))


def faults(browser: webdriver.Chrome) -> list[str]:
    """Return errors on the page and in the console."""
    messages = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    broken = browser.find_elements(By.CSS_SELECTOR, '[data-testid="stException"]')
    return [m for m in messages if not any(name in m for name in HARMLESS)] + [element.text for element in broken]


def external_requests(browser: webdriver.Chrome, address: str) -> list[str]:
    """Return URLs outside of this server that the browser has requested since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in requested if not url.startswith((address, "data:", "blob:", "about:", "chrome:"))]


TITLES = dict(
    zip(
        PAGES,
        (
            "Which pretraining",
            "Source × backbone",
            "Compare two sources",
            "Score against cost",
            "Size, div",
            "One run",
            "Images",
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_without_errors(
    page: str,
    browser: webdriver.Chrome,
    serve: Serve,
    filled: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for store in (Path("no-such-store"), filled):
        address = serve(store)
        browser.get("about:blank")
        external_requests(browser, address)  # discard those of the previous page
        drawn(browser, f"{address}/?page={page}", TITLES[page])
        time.sleep(1)  # figures are drawn last
        assert not faults(browser)
        assert not external_requests(browser, address)


def rows_of(browser: webdriver.Chrome) -> list[list[str]]:
    """Return the cells of every table from its accessible version; the tables themselves are drawn on a canvas."""
    with contextlib.suppress(StaleElementReferenceException):
        grids = browser.find_elements(By.CSS_SELECTOR, 'table[role="grid"]')
        return [
            [cell.get_attribute("textContent") or "" for cell in grid.find_elements(By.TAG_NAME, "td")]
            for grid in grids
        ]
    return []


def test_filter_changes_table_and_url_and_the_url_restores_it(
    browser: webdriver.Chrome,
    serve: Serve,
    filled: Path,  # noqa: F811
) -> None:
    drawn(browser, serve(filled), TITLES["Leaderboard"])
    wait(lambda: any("satir/n-10" in cells for cells in rows_of(browser)))
    before = rows_of(browser)
    search = browser.find_element(By.CSS_SELECTOR, 'input[aria-label="Source contains"]')
    search.send_keys("n-30\n")
    wait(lambda: "search=n-30" in browser.current_url)
    wait(lambda: rows_of(browser) and not any("satir/n-10" in cells for cells in rows_of(browser)))
    after = rows_of(browser)
    assert after != before
    assert any("satir/n-30" in cells for cells in after)
    address = browser.current_url
    browser.get("about:blank")
    drawn(browser, address, TITLES["Leaderboard"])
    wait(lambda: rows_of(browser) == after)
    assert not faults(browser)


def test_a_box_chooses_the_test_split(browser: webdriver.Chrome, serve: Serve, tmp_path: Path) -> None:
    drawn(browser, serve(fill(tmp_path / "store").root), TITLES["Leaderboard"])
    choose_and_come_back(browser, "Test split", "elsewhere", "test=elsewhere", "soda, test split elsewhere")


def test_a_box_chooses_the_schedule(browser: webdriver.Chrome, serve: Serve, tmp_path: Path) -> None:
    drawn(browser, serve(fill_both(tmp_path / "store")), TITLES["Leaderboard"])
    choose_and_come_back(browser, "Schedule", "default", "schedule=default", "soda, default schedule")


def choose_and_come_back(browser: webdriver.Chrome, box: str, choice: str, address: str, board: str) -> None:
    """Choose in a box of the sidebar: rows, board and address change, and the address shows the same again."""
    wait(lambda: rows_of(browser))
    before = rows_of(browser)
    browser.find_element(By.CSS_SELECTOR, f'input[aria-label*="{box}"]').send_keys(f"{choice}\n")
    wait(lambda: address in browser.current_url)
    wait(lambda: f"{board}: people-made masks" in text(browser))
    wait(lambda: rows_of(browser) and rows_of(browser) != before)
    after, here = rows_of(browser), browser.current_url
    browser.get("about:blank")
    drawn(browser, here, TITLES["Leaderboard"])
    wait(lambda: rows_of(browser) == after)
    assert not faults(browser)


def test_scores_of_the_classes_are_kept_in_the_url(browser: webdriver.Chrome, serve: Serve, filled: Path) -> None:  # noqa: F811
    drawn(browser, f"{serve(filled)}/?classes=true", TITLES["Leaderboard"])
    wait(lambda: "IoU: correct pixels" in text(browser) and len(rows_of(browser)) == 4)  # tiers, cells, IoU, the paper
    box = browser.find_element(By.CSS_SELECTOR, 'input[aria-label*="Scores of each class"]')
    for name in ("precision", "recall"):
        box.send_keys(f"{name}\n")
        wait(lambda name=name: f"scores={name}" in browser.current_url)  # type: ignore[misc]
    wait(lambda: len(rows_of(browser)) == 5)
    assert "recall: correct pixels / pixels of the class" in text(browser)
    address, after = browser.current_url, rows_of(browser)
    browser.get("about:blank")
    drawn(browser, address, TITLES["Leaderboard"])
    wait(lambda: rows_of(browser) == after)
    assert not faults(browser)


def test_csv_download_equals_bench_table(
    browser: webdriver.Chrome,
    serve: Serve,
    downloads: Path,
    bench: Bench,
    filled: Path,  # noqa: F811
) -> None:
    drawn(browser, serve(filled), TITLES["Leaderboard"])
    wait(lambda: "All cells" in text(browser))
    wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, '[data-testid="stDownloadButton"] button')) >= 4)
    buttons = browser.find_elements(By.CSS_SELECTOR, '[data-testid="stDownloadButton"] button')
    [button for button in buttons if "CSV" in button.text][1].click()
    wait(lambda: (downloads / "cells.csv").is_file())
    expected = bench("table", "--format", "csv", "--store", filled).out
    pd.testing.assert_frame_equal(
        pd.read_csv(downloads / "cells.csv"), pd.read_csv(io.StringIO(expected)), check_exact=True
    )


def test_name_is_never_markup(browser: webdriver.Chrome, serve: Serve, tmp_path: Path) -> None:
    name = "<script>alert(1)</script><img src=x onerror=alert(2)>[x](javascript:alert(3))"
    note = f"{name} :red[x] :material/bug: :streamlit: :smile: $x$ http://x.invalid/y www.x.invalid a@x.invalid ![x](http://x.invalid/z.png)"
    store = Store(tmp_path / "store")
    for replicate in range(3):
        for source, cell in ((name, "1"), ("none", "2")):
            made = record(replicate, seed=replicate + len(cell), source=source, label_note=note, cell=cell * 64)
            write_record(store, made, evidence(replicate + len(cell)))
    for page in PAGES:
        drawn(browser, f"{serve(store.root)}/?page={page}", TITLES[page])
        time.sleep(1)
        taken = "img[src=x], img[alt='Streamlit logo'], a[href^=javascript], [aria-label='bug icon'], .katex"
        assert not browser.find_elements(By.CSS_SELECTOR, f"{taken}, a[href*=invalid], img[src*=invalid]")
        assert not [url for url in external_requests(browser, serve(store.root)) if "invalid" in url]
        assert note in text(browser)
        assert not faults(browser)  # an alert would have raised in the driver
        assert page != "Leaderboard" or name in text(browser)


def test_new_runs_appear(browser: webdriver.Chrome, serve: Serve, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    write_record(store, record(0), evidence(0))
    drawn(browser, serve(store.root), TITLES["Leaderboard"])
    assert not any("arrived-later" in cells for cells in rows_of(browser))
    for replicate in range(3):
        write_record(store, record(replicate, source="arrived-later", cell="d" * 64), evidence(replicate))
    wait(lambda: any("arrived-later" in cells for cells in rows_of(browser)))
    assert not faults(browser)
