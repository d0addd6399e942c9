import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import Bench, write_matrix
from PIL import Image

from bench.cli.app import cli
from pretrain_sources.recipe import Recipe


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


@pytest.mark.parametrize("path", list(commands(cli)), ids=" ".join)
def test_every_command_has_help_and_is_in_the_reference(path: tuple[str, ...], bench: Bench) -> None:
    shown = bench(*path, "--help")
    assert shown.code == 0
    assert len(shown.out.splitlines()[2].strip()) > 20
    reference = (Path(__file__).parent.parent / "bench" / "README.md").read_text()
    assert f"# bench {' '.join(path)}\n" in reference


def test_ls_lists_all_names_and_where_data_are(bench: Bench, soda: Path) -> None:
    shown = bench("ls", "--data", soda)
    for name in ("soda", "hit-uav-quick", "soda-unip-v1", "none/long", "segformer-b0", "fpn-efficientnet-lite0"):
        assert f"  {name} " in shown.out
    assert f"found in {soda}/soda" in shown.out
    assert "selects on test" in shown.out
    assert "  tiny " not in shown.out, "the network for tests is not for users"


# -- the SODA path, executed -----------------------------------------------------------------------------------------


def test_soda_runs_from_a_folder_in_its_layout(soda: Path, wheel: None, bench: Bench) -> None:
    ended = bench("run", "--matrix", "soda", "--smoke", "--data", soda, "--executor", "inline")
    assert ended.code == 0, ended.out + ended.err
    rows = {(row["source"], row["backbone"]): row for row in json.loads(bench("table", "--format", "json").out)}
    assert len(rows) == 6
    assert rows["imagenet", "fpn-efficientnet-lite0"]["status"] == "ok"
    assert {row["rank"] for row in rows.values()} == {None}, "smoke is never ranked"
    assert "TOO SHORT TO RANK ANYTHING" in bench("table").out


def test_a_gpu_protocol_is_not_run_on_a_cpu(soda: Path, bench: Bench) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ended = bench("run", "--matrix", "soda", "--data", soda)
    assert ended.code == 1
    assert "--smoke" in ended.err
    assert bench("status").out.strip() == "no runs yet", "no record is left"


def test_data_check_counts(soda: Path, bench: Bench) -> None:
    shown = bench("data", "check", "soda", "--data", soda)
    assert shown.code == 0
    for text in (
        "can be used",
        "train      40 frames",
        "val        20",
        "test       30",
        "160x120",
        "traffic cone",
        "content hash",
    ):
        assert text in shown.out
    row = next(line for line in shown.out.splitlines() if line.strip().startswith("sky"))
    assert row.split()[1::2] == [f"{share:.2%}" for share in sky_shares(soda)]


def sky_shares(soda: Path) -> list[float]:
    from bench.targets import open_target

    target = open_target("soda", soda)
    labels = {s: np.stack([np.asarray(Image.open(f.label)) for f in frames]) for s, frames in target.splits.items()}
    return [float((label == 18).mean()) for label in labels.values()]


def test_data_make_keeps_what_is_there(bench: Bench, tmp_path: Path) -> None:
    make = ("data", "make", "scenes", "--n", 60, "--size", "64x80", "--data", tmp_path)
    assert "120 frames" in bench(*make).out
    again = bench(*make)
    assert (again.code, "exists already; delete" in again.out) == (0, True)
    other = bench(*make, "--seed", 7)
    assert (other.code, "exists already, with other settings; delete" in other.err) == (1, True)
    checked = bench("data", "check", "scenes", "--data", tmp_path)
    assert checked.code == 0
    assert "80x64 (20)" in checked.out  # width first, as everywhere but in --size


@pytest.mark.parametrize(
    "size", ["64\u00d764", "\u0666\u0664x64", "64x", "x", "64x64x64", "-64x64", "6.4x64", "0x64", "64x99999"]
)
def test_invalid_sizes(size: str, bench: Bench, tmp_path: Path) -> None:
    result = bench("data", "make", "scenes", "--n", 60, "--size", size, "--data", tmp_path)
    assert result.code == 1
    assert "--size" in result.err
    assert not list(tmp_path.glob("scenes*"))


# -- every option of every command -----------------------------------------------------------------------------------

LEAVES = [path for path in commands(cli) if not isinstance(command_at(path), click.Group)]
NUMBERS = click.types.IntParamType | click.types.FloatParamType
TEXTS = ("", "-1", "99999999999999999999", "\x00", "9" * 5000, "a:b:c", ":", "nan")


def test_all_commands_are_collected() -> None:
    assert len(LEAVES) >= 20
    assert ("submit", "verify") in LEAVES


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_accepts_or_rejects_any_text_without_a_traceback(
    path: tuple[str, ...], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, unprintable and overlong text is always rejected."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execv", lambda *_: None)  # a dashboard would take this process
    monkeypatch.setattr("bench.scenes._fill", lambda folder, *_: folder.mkdir(parents=True))
    if path[0] in ("table", "compare", "claim", "scaling", "status"):
        shutil.copytree(Path(__file__).parents[1] / "results" / "runs", tmp_path / "store")
    command = command_at(path)
    params = [param for param in command.params if not getattr(param, "is_flag", False)]
    for param in params:
        for text in TEXTS:
            started = time.monotonic()
            result = bench(*path, *words_for(params, param, text))
            what = f"bench {' '.join(path)} with {param.name} {text[:30]!r}: {result}"
            assert result.code in (0, 1, 2), what
            assert "Traceback" not in result.err, what
            assert time.monotonic() - started < 20, what
            if result.code == 0:
                assert text not in ("", "\x00", "9" * 5000), what
                assert not isinstance(param.type, NUMBERS) or path == ("dashboard",), what
            else:
                assert result.out or result.err, what


def words_for(params: list[click.Parameter], which: click.Parameter, text: str) -> Iterator[str]:
    """A call with this text for one parameter and valid values for the required ones."""
    for param in params:
        if param is which or param.required:
            choices = getattr(param.type, "choices", ("x",))
            given = text if param is which else choices[0]
            yield from [given] if isinstance(param, click.Argument) else [f"{max(param.opts, key=len)}={given}"]


def test_numbers_have_bounds() -> None:
    """On the command line, in the recipe or in the renderer."""
    elsewhere = {*Recipe.model_fields, "n"}
    for path in set(LEAVES) - {("dashboard",)}:
        for param in command_at(path).params:
            bounded = isinstance(param.type, click.types._NumberRangeBase) or param.name in elsewhere
            assert bounded or not isinstance(param.type, NUMBERS), f"{path} {param.name}"


# -- bad input: one clear message, exit 1, nothing lost --------------------------------------------------------------


def truncated_jpeg(base: Path) -> None:
    path = next((base / "JPEGImages").iterdir())
    path.write_bytes(path.read_bytes()[:500])


def sixteen_bit_mask(base: Path) -> None:
    Image.fromarray(np.zeros((120, 160), np.uint16)).save(next((base / "SegmentationClassOne").iterdir()))


def other_size(base: Path) -> None:
    Image.new("L", (10, 10)).save(next((base / "SegmentationClassOne").iterdir()))


def empty_list(base: Path) -> None:
    (base / "train_infrared.txt").write_text("")


def no_folder(base: Path) -> None:
    shutil.rmtree(base.parent)


@pytest.mark.parametrize("words", [("run", "--matrix", "soda", "--smoke"), ("data", "check", "soda")])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated_jpeg, "truncated"),
        (sixteen_bit_mask, "mask of mode I;16"),
        (other_size, "same size"),
        (empty_list, "train_infrared.txt is empty"),
        (no_folder, "no folder soda or SODA"),
    ],
)
def test_bad_data_is_an_error(
    words: tuple[str, ...], spoil: Callable[[Path], None], says: str, soda: Path, bench: Bench, tmp_path: Path
) -> None:
    spoil(soda / "soda" / "InfraredSemanticLabel")
    ended = bench(*words, "--data", soda)
    assert ended.code == 1
    assert says in ended.err
    assert not list(tmp_path.glob("store/soda*"))


def test_bad_names_and_keys_are_errors(bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    good = path.read_text()
    for text, says in (
        (good.replace("- tiny", "- tinny"), "unknown backbone 'tinny': did you mean 'tiny'?"),
        (good.replace("protocol:", "protocoll:"), "line 3: unknown key 'protocoll': did you mean 'protocol'?"),
        (good.replace("target: scenes", "target: sodda"), "unknown target 'sodda': did you mean 'soda'?"),
        (good.replace("test-protocol.yaml", "nowhere.yaml"), "cannot read"),
    ):
        path.write_text(text)
        ended = bench("run", "--matrix", path)
        assert ended.code == 1
        assert says in ended.err
        assert "Traceback" not in ended.err
    assert "did you mean 'demo'" in bench("run", "--matrix", "dmeo").err
    assert "did you mean 'failed'" in bench("run", "--matrix", "demo", "--retry", "fail").err
    assert bench("run").code == 1
    assert bench("table", "--format", "xls").code == 1


def test_a_store_that_cannot_be_written(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store")):
        ended = bench("run", "--matrix", matrix_file, "--store", store)
        assert ended.code == 1
        assert "cannot write" in ended.err or "is a file, not a folder" in ended.err
        assert "--store" in ended.err


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


def test_a_full_disk_stops_the_run_and_the_next_one_continues(
    bench: Bench, matrix_file: Path, small_disk: Path, tmp_path: Path
) -> None:
    words = ("run", "--matrix", matrix_file, "--store", small_disk, "--executor", "inline")
    assert bench(*words).code == 0
    kept = {p: p.read_bytes() for p in small_disk.rglob("*.*") if p.is_file()}
    write_matrix(tmp_path, finetune_steps=4)  # another identity: everything is to do
    fill(small_disk / "ballast")
    full = bench(*words)
    assert full.code == 1
    assert "free some space" in full.err
    assert {p: p.read_bytes() for p in kept} == kept
    (small_disk / "ballast").unlink()
    assert bench(*words).code == 0
    assert len(json.loads(bench("table", "--format", "json", "--store", small_disk).out)) == 2


@pytest.mark.parametrize("name", ["../../x", "a[/b]", "", "x\n"])
def test_invalid_protocol_names(name: str, bench: Bench, tmp_path: Path) -> None:
    ended = bench("run", "--matrix", write_matrix(tmp_path, name=name))
    assert ended.code == 1
    assert "name: does not match" in ended.err


def test_typical_mistakes_get_a_hint(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    (tmp_path / "notes.md").write_text("")
    for words, says in (
        (("run", "--matrix", path, "--weights", tmp_path / "nowhere"), "no folder"),
        (("data", "check", "scenes", "--data", scenes / "scenes"), f"--data {scenes}"),
        (("run", "--matrix", tmp_path / "notes.md"), "must end in .yaml"),
        (("run", "--matrix", tmp_path / "test-matrix"), "did you mean the file"),
        (("table", "--store", tmp_path / "notes.md"), "is a file, not a folder"),
    ):
        ended = bench(*words)
        assert ended.code == 1
        assert says in ended.err


def test_reading_commands_write_nothing_into_other_folders(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shown = bench("table", "--store", tmp_path / "empty")
    assert shown.out.startswith("no runs in this store yet")
    assert not list((tmp_path / "empty").iterdir())


def test_no_store_yet(bench: Bench) -> None:
    for command in ("table", "status"):
        ended = bench(command)
        assert ended.code == 1
        assert "bench run --matrix demo" in ended.err


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_in_every_format(bench: Bench, matrix_file: Path) -> None:
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    rows = json.loads(bench("table", "--format", "json").out)
    wanted = {
        "target",
        "protocol",
        "source",
        "backbone",
        "n",
        "miou",
        "miou_low",
        "miou_high",
        "weighted_f",
        "status",
        "reason",
    }
    assert wanted <= set(rows[0])
    assert rows[0]["miou_low"] is None, "two replicates have no interval, and never one of 0.0"
    [written] = csv.DictReader(io.StringIO(bench("table", "--format", "csv").out))
    assert float(written["miou"]) == rows[0]["miou"]
    for form in ("table", "md"):
        text = bench("table", "--format", form).out
        assert f"{rows[0]['miou']:.4f}" in text
        assert text.index("0.6906") > text.index("Printed in the paper"), "the paper's rows stand apart"
        assert "synthetic" in text
        assert "no interval under 3 replicates" in text
        assert "Predicting 'background' everywhere scores" in text


def test_results_selected_on_test_are_flagged(bench: Bench, tmp_path: Path) -> None:
    bench("run", "--matrix", write_matrix(tmp_path, select_on="test"), "--executor", "inline")
    assert "SELECTED ON TEST" in bench("table").out


# -- start-up --------------------------------------------------------------------------------------------------------


def test_python_m_bench_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "ls", "--nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "No such option" in done.stderr


def test_help_loads_no_heavy_module() -> None:
    heavy = ("torch", "pandas", "numpy", "optuna", "scipy", "pydantic")
    code = f"import sys, bench.cli.app; sys.exit(sorted({set(heavy)} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["ls"], ["table", "--store", "results/runs"], ["--help"], ["claim", "a"]])
def test_a_command_with_closed_output_exits_quietly_as_on_sigpipe(words: list[str]) -> None:
    root = Path(__file__).parents[1]
    call = [sys.executable, "-c", "from bench.cli.app import main; main()", *words]
    running = subprocess.Popen(
        call,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    errors = running.stderr.read()
    if words[0] == "claim":  # errors are still reported
        assert (running.wait(), len(errors.splitlines())) == (1, 1)
    else:
        assert (running.wait(), errors) == (141, "")
