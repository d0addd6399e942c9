"""Randomly corrupted files: no traceback, no endless call, and never a wrong board.

`make test` runs a few fixed cases of each kind; `BENCH_FUZZ=200` (as in `make stress`) runs that many random ones and prints how to
repeat a failure. Past failures are kept as examples.
"""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Bench, protocol_fields
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from submitted import Packed, card_folder

from results import load_table
from results.board import board
from results.store import Store
from results.table import runs_frame

CASES = int(os.environ.get("BENCH_FUZZ", "0"))
FEW = 18  # of each kind in `make test`
LIMIT_S = 30  # of one call on a busy machine; normally under 3 s
SPOILING = settings(
    max_examples=CASES or FEW,
    derandomize=not CASES,
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        "",
        " ",
        "x" * 5000,
        0,
        -1,
        1.5,
        1e308,
        -(10**30),
        "\x1b[31m",
        "\u202e",
        "../../etc/passwd",
        "/dev/zero",
    ),
    *(
        "__main__:x",
        "unittest.__main__:x",
        [],
        {},
        [[]],
        {"a": {"b": []}},
        "2026-99-99",
        "[" * 50,
        "satir/n-" + "9" * 5000,
    ),
)
PIECES = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"[" * 60_000,
        b"{" * 2_000,
        b"&a [*a, *a]",
        b"!!python/object:os.system x",
        b"\x1b]8;;http://x\x07",
    ),
    *(
        b"9" * 5_000,
        b"\r\n---\r\n",
        b": ",
        b"\t",
        b"\xef\xbb\xbf",
        b"NaN",
        b"1e400",
        b'"\\ud800"',
        b"\n" * 3_000,
        b"- - - - -",
    ),
)

# one change of a file: of bytes anywhere, or of a value in its tree
CUT = st.tuples(st.just("cut"), st.floats(0, 1), st.floats(0, 1))
FLIP = st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255))
PUT = st.tuples(st.just("put"), st.floats(0, 1), st.sampled_from(PIECES))
DOUBLE = st.tuples(st.just("double"), st.floats(0, 1), st.floats(0, 1))
SET = st.tuples(st.just("set"), st.floats(0, 1), st.sampled_from(NASTY))
DROP = st.tuples(st.just("drop"), st.floats(0, 1), st.just(None))
BYTES = st.lists(st.one_of(CUT, FLIP, PUT, DOUBLE), min_size=1, max_size=3)
TREE = st.lists(st.one_of(SET, DROP), min_size=1, max_size=3)
CHANGES = st.one_of(TREE, BYTES)


def spoiled(data: bytes, changes: list[tuple[str, float, Any]], form: Any) -> bytes:
    """The file after these changes."""
    for kind, where, what in changes:
        if kind in ("set", "drop"):
            try:
                data = _in_tree(form, data, where, kind, what)
            except (ValueError, yaml.YAMLError, TypeError):
                return data  # no longer a tree
            continue
        at = int(where * len(data))
        if kind == "cut":
            data = data[:at] + data[at + int(what * (len(data) - at)) :]
        elif kind == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ what]) + data[at + 1 :]
        elif kind == "put":
            data = data[:at] + what + data[at:]
        elif kind == "double":
            data = data + data[at : at + int(what * 2_000)]
    return data


def _in_tree(form: Any, data: bytes, where: float, kind: str, what: Any) -> bytes:
    loads, dumps = (json.loads, json.dumps) if form is json else (yaml.safe_load, yaml.safe_dump)
    tree = loads(data.decode())
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        places += [(each, key) for key in keys]
        waiting += [each[key] for key in keys]
    if places:
        holder, key = places[min(int(where * len(places)), len(places) - 1)]
        if kind == "set":
            holder[key] = what
        else:
            del holder[key]
    return str(dumps(tree)).encode()


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail the test if a call hangs."""

    def late(*_: object) -> None:
        raise AssertionError(f"it took more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ends_well(bench: Bench, *words: object) -> None:
    """The exit code is documented and there is no traceback; other exceptions fail in the fixture."""
    with time_limit():
        result = bench(*words)
    assert result.code in (0, 1, 2, 4, 5), result
    assert "Traceback" not in result.out + result.err
    assert "\x1b" not in result.out + result.err, "a raw escape reaches the terminal"
    assert len(result.err) < 20_000, "the error is too long"


@pytest.fixture
def few(scenes: Path, tmp_path: Path) -> Path:
    """A folder for files of a user, with a protocol in it."""
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(protocol_fields()))
    return tmp_path


@SPOILING
@given(changes=CHANGES)
@example(changes=[("put", 0.0, b"[" * 60_000)])
def test_a_card(changes: list[Any], few: Path, bench: Bench) -> None:
    folder = few / "card"
    shutil.rmtree(folder, ignore_errors=True)
    card_folder(folder)
    path = folder / "card.yaml"
    path.write_bytes(spoiled(path.read_bytes(), changes, yaml))
    ends_well(bench, "submit", "check", folder)


@SPOILING
@given(changes=CHANGES)
@example(changes=[("set", 0.9, ["none"] * 5)])
def test_a_matrix(changes: list[Any], few: Path, bench: Bench) -> None:
    fields: dict[str, Any] = {
        "target": "scenes",
        "protocol": "p.yaml",
        "sources": ["none", {"satir": {"top_k": [4, 9]}}],
    }
    fields |= {"backbones": ["tiny"], "train_fracs": [0.5, 1.0]}
    path = few / "m.yaml"
    path.write_bytes(spoiled(yaml.safe_dump(fields).encode(), changes, yaml))
    ends_well(bench, "plan", "--matrix", path)


@SPOILING
@given(changes=CHANGES)
@example(changes=[("set", 0.5, 10**9)])
def test_a_protocol(changes: list[Any], few: Path, bench: Bench) -> None:
    (few / "q.yaml").write_bytes(spoiled(yaml.safe_dump(protocol_fields(name="q-v1")).encode(), changes, yaml))
    fields = {"target": "scenes", "protocol": "q.yaml", "sources": ["none"], "backbones": ["tiny"]}
    (few / "m.yaml").write_text(yaml.safe_dump(fields))
    ends_well(bench, "plan", "--matrix", few / "m.yaml")


CLAIMS = [
    {"about": "One", "says": "A is ahead.", "claim": "imagenet > none by 0.01 miou", "expect": "supported"},
    {"says": "B is not.", "claim": "satir/sam-tiny > none weighted_f", "expect": "not shown", "target": "hit-uav"},
]
SHIPPED = Path(__file__).parent.parent / "results"


@SPOILING
@given(changes=CHANGES, shipped=st.booleans())
def test_claims(changes: list[Any], shipped: bool, few: Path, bench: Bench) -> None:
    text = (SHIPPED / "claims-udder.yaml").read_bytes() if shipped else yaml.safe_dump(CLAIMS).encode()
    (few / "c.yaml").write_bytes(spoiled(text, changes, yaml))
    ends_well(bench, "claim", "--file", few / "c.yaml", "--store", SHIPPED / "runs")


SHOWN = ["source", "backbone", "n", "miou", "weighted_f", "rank", "status"]


@pytest.fixture(scope="session")
def held(packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, Path, pd.DataFrame]:
    """A bundle beside the store that it came from, the files of both, and the board of the store alone."""
    here = packed.copy(tmp_path_factory.mktemp("fuzz"))
    store = here.bundle.parent.parent / "bench-store"
    shutil.copytree(packed.store / "scenes", store / "scenes")
    for folder in (store / "scenes").glob("*/mine"):
        shutil.rmtree(folder)  # the bundle brings it
    return here, store, board(load_table(store))


FILES = (
    "bundle.json",
    "card.yaml",
    "record.json",
    "evidence.npz",
    "history.csv",
    "certificate.json",
    "trials.jsonl",
    "verdict",
)


@SPOILING
@given(changes=CHANGES, name=st.sampled_from(FILES), sealed=st.booleans())
def test_a_bundle(
    changes: list[Any], name: str, sealed: bool, held: tuple[Packed, Path, pd.DataFrame], bench: Bench, tmp_path: Path
) -> None:
    """A corrupted bundle costs only its own rows. sealed: with updated checksums and a forged verdict."""
    whole, store, before = held
    folder = store.parent / "submissions"
    kept = tmp_path / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(whole.bundle, kept)
    try:
        path = whole.bundle.with_name("mine.verdict.json") if name == "verdict" else next(whole.bundle.rglob(name))
        fields: dict[str, Any] = {
            "name": "mine",
            "level": "reproduced",
            "bundle_sha256": "0" * 64,
            "checked": "2026",
            "version": "0",
        }
        fields |= {"tried": "reproduced", "faults": [], "done": []}
        data = json.dumps(fields).encode() if name == "verdict" else path.read_bytes()
        path.write_bytes(spoiled(data, changes, yaml if name == "card.yaml" else json))
        if sealed and name not in ("verdict", "bundle.json"):
            whole.repack()
            seal = fields | {"bundle_sha256": _sha256(whole.bundle / "bundle.json")}
            whole.bundle.with_name("mine.verdict.json").write_text(json.dumps(seal))
        with time_limit():
            runs = runs_frame(Store(store))
        ours = runs[runs["submission"].isna()]
        pd.testing.assert_frame_equal(board(ours)[SHOWN], before[SHOWN])
        for form in ("table", "md"):
            ends_well(bench, "table", "--store", store, "--format", form)
        ends_well(bench, "submit", "verify", whole.bundle, "--manifest", whole.manifest, "--store", store)
    finally:
        shutil.rmtree(folder)
        shutil.copytree(kept, whole.bundle)


def _sha256(path: Path) -> str:
    from results.evidence import sha256

    return sha256(path.read_bytes())


@SPOILING
@given(changes=BYTES)
def test_a_cache(changes: list[Any], held: tuple[Packed, Path, pd.DataFrame]) -> None:
    """A damaged cache is rebuilt: the board is that of the records."""
    _, store, before = held
    runs_frame(Store(store))
    (path,) = (store / "cache").glob("runs-*.sealed")
    damaged = spoiled(path.read_bytes(), changes, json)
    path.write_bytes(damaged)
    runs = runs_frame(Store(store))
    pd.testing.assert_frame_equal(board(runs[runs["submission"].isna()])[SHOWN], before[SHOWN])
