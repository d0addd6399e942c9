"""How long the leaderboard takes to appear, and to follow a filter, in a real browser. Prints JSON lines.

python tests/benchmarks/dashboard.py [RUNS ...]    default: 10000 100000
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
from examples import evidence, record  # noqa: E402

from results.evidence import sha256  # noqa: E402
from results.store import Store  # noqa: E402

AIMS_S = {10_000: (2.0, 0.5), 100_000: (4.0, None)}
BACKBONES, REPLICATES, PORT = 5, 5, 8777
ROUNDS = 5


def fill(root: Path, runs: int) -> None:
    """Records of one board, written without waiting for the disk."""
    store, rng = Store(root), np.random.default_rng(0)
    proof = evidence(0).to_bytes()
    pattern = record(0, replicates=REPLICATES)
    text = pattern.model_dump_json(indent=1)
    for number in range(runs // REPLICATES):
        source, backbone = f"satir/top-{number // BACKBONES}", f"backbone-{number % BACKBONES}"
        cell = sha256(f"cell {number}".encode())
        for replicate in range(REPLICATES):
            run = sha256(f"{number} {replicate}".encode())
            folder = store.run_dir(pattern.target, pattern.protocol, source, backbone, replicate, run)
            folder.mkdir(parents=True)
            (folder / "evidence.npz").write_bytes(proof)
            made = text.replace(pattern.run, run).replace(pattern.cell, cell).replace('"none"', f'"{source}"')
            made = made.replace('"tiny"', f'"{backbone}"').replace('"replicate": 0', f'"replicate": {replicate}')
            made = re.sub(r'"miou": [0-9.]+', f'"miou": {rng.uniform(0.3, 0.5)}', made)
            (folder / "record.json").write_text(made)


def wait(until: object, patience_s: float = 120) -> float:
    """Seconds until it holds."""
    began = time.perf_counter()
    while not until():  # type: ignore[operator]
        assert time.perf_counter() - began < patience_s, "waited in vain"
        time.sleep(0.01)
    return time.perf_counter() - began


def healthy() -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://localhost:{PORT}/_stcore/health").read())
    except OSError:
        return False


def peak_gib(process: int) -> float:
    """The most memory that a process has held."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 2**20


def browser() -> webdriver.Chrome:
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "window-size=1280,1600"):
        options.add_argument(f"--{word}")
    return webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))


SHOWN = "return [...document.querySelectorAll('table[role=grid]')].some(t => t.textContent.includes(arguments[0]))"
OTHERS_GONE = """const texts = [...document.querySelectorAll('table[role=grid] td')].map(c => c.textContent);
const named = texts.filter(t => t.startsWith('satir/top-'));
return named.length > 0 && named.every(t => t.includes(arguments[0]))"""
EMPTY = """import streamlit as st
named = st.text_input("Source contains")
st.dataframe({"a": [f"satir/top-{i}" for i in range(400) if named in str(i)]})
"""
SETTINGS = ("--server.headless", "true", "--server.address", "localhost", "--browser.gatherUsageStats", "false")


def looked_at(words: list[object]) -> dict[str, float]:
    """Seconds until the server is up, the table appears in a new browser, appears again, and follows a filter."""
    began = time.perf_counter()
    server = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
    page = browser()
    try:
        wait(healthy)
        result = {"up_s": time.perf_counter() - began}
        for name in ("first_s", "again_s"):
            began = time.perf_counter()
            page.get(f"http://localhost:{PORT}/")
            wait(lambda: page.execute_script(SHOWN, "satir/top-"))
            result[name] = time.perf_counter() - began
        return result | {"change_s": followed(page), "peak_gib": peak_gib(server.pid)}
    finally:
        page.quit()
        server.terminate()
        server.wait()


def followed(page: webdriver.Chrome) -> float:
    """Median seconds until the table shows what a filter leaves."""
    field = page.find_element(By.CSS_SELECTOR, 'input[aria-label="Source contains"]')
    taken = []
    for number in range(11, 11 + ROUNDS):
        field.send_keys(str(number))
        began = time.perf_counter()
        field.send_keys("\n")
        wait(lambda n=str(number): page.execute_script(OTHERS_GONE, n))
        taken.append(time.perf_counter() - began)
        field.send_keys("\b\b\n")
        time.sleep(1)
    return float(np.median(taken))


def main() -> None:
    bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if bench is None or shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        sys.exit("it takes the `bench` command beside this python, chromium and chromedriver")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "empty.py").write_text(EMPTY)
        streamlit = [sys.executable, "-m", "streamlit", "run", Path(name) / "empty.py"]
        empty = looked_at([*streamlit, "--server.port", PORT, *SETTINGS])
        for runs in [int(word) for word in sys.argv[1:]] or list(AIMS_S):
            root = Path(name) / f"store-{runs}"
            fill(root, runs)
            found = looked_at([bench, "dashboard", "--store", root, "--port", PORT, "--no-browser"])
            aims = AIMS_S.get(runs, (None, None))
            row = {"runs": runs, **found, "aim_first_s": aims[0], "aim_change_s": aims[1]}
            beside = {f"empty_{name}": value for name, value in empty.items()}
            print(json.dumps(row | beside), flush=True)


if __name__ == "__main__":
    main()
