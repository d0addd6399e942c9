"""A matrix that raises the trials of its protocol: a name, an identity and a board of its own, known to verification."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bench, write_matrix
from submitted import Packed, pack_one, ship

from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.shipped import load_protocol, named_protocol
from bench.submission import verify
from pretrain_sources.config_file import FileError
from results.schedule_names import split_name

SHIPPED = "hit-uav-v2"


def matrix(folder: Path, **changes: object) -> str:
    path = write_matrix(folder, trials=2)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return str(path)


@pytest.fixture(scope="module")
def raised(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    """A submission under 17 trials, which TPE proposes. Read only."""
    with pytest.MonkeyPatch.context() as patch:
        fields: dict[str, Any] = {"name": "test-raised-v1", "finetune_steps": 1, "max_frames": 2}
        patch.setattr("bench.shipped.shipped_files", ship(tmp_path_factory.mktemp("shipped"), **fields))
        yield pack_one(
            scenes, tmp_path_factory.mktemp("raised"), protocol="test-raised-v1", sources=["none"], trials=17
        )


def test_the_name_says_how_many(tmp_path: Path) -> None:
    plain, more = (
        load_matrix(matrix(tmp_path / name, **fields)) for name, fields in (("a", {}), ("b", {"trials": 16}))
    )
    assert (plain.protocol.name, plain.protocol.trials) == ("test-v1", 2)
    assert (more.protocol.name, more.protocol.trials) == ("test-v1~trials-16", 16)
    assert {cell.protocol for cell in more.cells} == {"test-v1~trials-16"}
    assert plain.protocol.identity_hash != more.protocol.identity_hash
    assert plain.protocol.pretraining_hash == more.protocol.pretraining_hash, "pretrainings are shared"
    assert load_matrix(matrix(tmp_path / "c", trials=2)).protocol == plain.protocol, "as many change nothing"
    smoke = load_matrix(matrix(tmp_path / "d", trials=16), smoke=True).protocol
    assert (smoke.name, smoke.trials) == ("test-v1~trials-16~smoke", 1)


@pytest.mark.parametrize("trials", [1, 10_001])
def test_trials_are_only_raised(trials: int, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"`trials`: test-v1 has 2 trials; choose 2 to 10,000, not "):
        load_matrix(matrix(tmp_path, trials=trials))


@pytest.mark.parametrize("trials", [0, 2.5, "many", True])
def test_trials_are_a_number(trials: object, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="trials"):
        load_matrix(matrix(tmp_path, trials=trials))


@pytest.mark.parametrize("schedules", [[], ["best"], ["tuned", "tuned"], "tuned"])
def test_odd_schedules_are_refused(schedules: object, tmp_path: Path) -> None:
    with pytest.raises((FileError, BenchError), match=r"schedules|duplicate name 'tuned'"):
        load_matrix(matrix(tmp_path, schedules=schedules))


def test_names_in_records_are_read() -> None:
    assert named_protocol(SHIPPED) == load_protocol(SHIPPED)
    assert named_protocol(f"{SHIPPED}~trials-16") == load_protocol(SHIPPED).with_trials(16)
    assert named_protocol(f"{SHIPPED}~trials-16~smoke") == load_protocol(SHIPPED).with_trials(16).smoke()
    assert split_name(f"{SHIPPED}~trials-16") == (SHIPPED, 16)
    assert split_name(SHIPPED) == (SHIPPED, None)


@pytest.mark.parametrize("end", ["2", "0", "016", "-4", "1e3", "16 ", "99999", "1000000", "", "x", "16~trials-17", "²"])
def test_odd_names_are_unknown(end: str) -> None:
    with pytest.raises(BenchError, match="unknown protocol"):
        named_protocol(f"{SHIPPED}~trials-{end}")


def test_a_submission_under_more_trials_is_verified(raised: Packed, bench: Bench, tmp_path: Path) -> None:
    here = raised.copy(tmp_path)
    assert verify.judge(here.bundle, [here.manifest]).faults == []
    text = bench("table", "--store", raised.store).out
    assert "scenes, test-raised-v1~trials-17" in text
    assert "TPE, 17 trials; the best of 17 equal candidates is ahead of trial 0 by 1.3 SE" in text
    assert "TPE, 17 trials; 17 trainings to tune a cell" in bench("plan", "--matrix", raised.matrix).out
    assert len(list(raised.store.glob("scenes/test-raised-v1~trials-17/*/*/*/record.json"))) == 4


@pytest.mark.parametrize("name", ["test-raised-v1", "test-raised-v1~trials-16", "test-raised-v1~trials-018"])
def test_a_run_under_more_trials_is_not_one_under_fewer(name: str, raised: Packed, tmp_path: Path) -> None:
    here = raised.copy(tmp_path)
    here.edit(lambda fields: fields.update(protocol=name))
    here.repack()
    codes = {fault.code for fault in verify.judge(here.bundle, [here.manifest]).faults}
    assert codes & {"settings.protocol", "record.unknown_name"}
