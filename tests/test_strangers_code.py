"""Names of backbones in records, cards and bundles of others: none of them causes an import."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bench
from own_backbone import EXAMPLE, Code
from submitted import CARD, Packed, fingerprints, pack_one
from test_dashboard import PAGES, Open, opened, texts  # noqa: F401 - opened is a fixture

from backbones.registry import known_backbone, stranger_code
from backbones.spec import BackboneError
from bench.submission import verify
from safe_io.user_code import search_in

NAME = "own_net:build"


def rename(here: Packed, backbone: str) -> None:
    """Give all runs of a bundle another backbone, as a careful forger would."""

    def change(record: dict[str, Any]) -> None:
        record["backbone"] = record["settings"]["backbone"]["name"] = backbone
        record["settings"]["backbone"] |= {"builder": "own", "encoder": f"{backbone} version 1", "decoder": "own"}
        record["run"], record["cell"] = fingerprints(record["settings"]["identity"])

    for replicate in range(2):
        here.edit(change, replicate)
    card = yaml.safe_load((here.bundle / "card.yaml").read_text())
    card["checkpoints"][0]["backbones"] = [backbone]
    (here.bundle / "card.yaml").write_text(yaml.safe_dump(card))
    here.repack()


@pytest.fixture
def here(packed: Packed, code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packed:
    """A bundle of runs on `own_net:build`, whose module can be imported and would create a file."""
    code.write("own_net", watched=True)
    made = packed.copy(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(code.folder)])
    monkeypatch.chdir(code.folder)
    rename(made, NAME)
    return made


@pytest.mark.parametrize("words", [(), ("--spot", 4), ("--reproduce",), ("--source", "mine")])
def test_verifying_a_bundle_imports_nothing(words: tuple[object, ...], here: Packed, code: Code, bench: Bench) -> None:
    words = tuple(here.folder if word == "mine" else word for word in words)
    call = ("submit", "verify", here.bundle, "--manifest", here.manifest, "--networks", here.networks)
    done = bench(*call, *words)
    assert done.code == 2
    (fault,) = [line for line in done.out.splitlines() if line.startswith("FAULT")]
    assert f"2 runs of backbone '{NAME}', not known here" in fault
    assert f"if you have its module and trust it, give --backbone {NAME}" in fault
    assert json.loads((here.bundle.parent / "mine.verdict.json").read_text())["level"] == "claimed"
    assert not code.ran.exists()
    bench(*call, *words, "--backbone", NAME)
    assert code.ran.exists(), "the file shows an import"


def test_showing_a_bundle_imports_nothing(here: Packed, code: Code, bench: Bench, tmp_path: Path, opened: Open) -> None:  # noqa: F811
    runs = here.bundle / "runs"
    for words in (
        ("table",),
        ("table", "--tiers"),
        ("status",),
        ("status", f"mine x {NAME}"),
        ("report", "--out", tmp_path / "report"),
        ("compare", "mine", "none"),
        ("claim", "mine > none"),
    ):
        bench(*words, "--store", runs)
    assert NAME in bench("table", "--store", runs).out
    bench("table", "--store", here.bundle.parent.with_name("bench-store"))
    bench("submit", "verify", runs)
    for page in PAGES:
        app = opened(runs, page=page)
        assert not app.exception, app.exception
    assert not code.ran.exists()


def test_checking_running_and_packing_a_card_imports_nothing(here: Packed, code: Code, bench: Bench) -> None:
    mine = code.folder / "mine"
    mine.mkdir()
    checkpoints = [{"backbones": [NAME, "os:system", "tiny"], "path": str(here.folder / "weights.safetensors")}]
    (mine / "card.yaml").write_text(yaml.safe_dump(CARD | {"checkpoints": checkpoints}))
    done = bench("submit", "check", mine)
    assert done.code == 1
    assert f"unknown backbone '{NAME}': it is code of its author, not imported unasked" in done.out
    assert "unknown backbone 'os:system': it is code" in done.out
    assert bench("plan", "--matrix", here.matrix, "--source", mine).code == 0
    bench("submit", "pack", mine, "--store", here.bundle / "runs", "--manifest", here.manifest)
    assert not code.ran.exists()


def test_a_bundle_passes_once_its_code_is_trusted(
    code: Code, scenes: Path, bench: Bench, shipped_protocol: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own module, of the same version: recomputed, predicted again and trained again."""
    code.write("own_net")
    monkeypatch.chdir(code.folder)
    search_in([code.folder])
    made = pack_one(scenes, code.folder, NAME)
    call = (
        "submit",
        "verify",
        made.bundle,
        "--manifest",
        made.manifest,
        "--spot",
        2,
        "--reproduce",
        "--source",
        made.folder,
    )
    assert bench(*call).code == 2
    done = bench(*call, "--backbone", NAME)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1].endswith("reproduced")
    assert "the same scores, bit for bit" in done.out
    assert f"the code of {NAME} is the reviewer's own copy, {NAME} version 1" in done.out
    code.write("own_net", EXAMPLE.replace('version = "1"', "version = 2"))
    faults = verify.judge(made.bundle, [made.manifest], trusted=(NAME,)).faults
    assert {fault.code for fault in faults} == {"settings.backbone", "identity.field"}
    assert f"differs from {NAME} as defined here, {NAME} version 2" in str(faults[0])


def test_code_that_the_reviewer_names_must_be_there(here: Packed, bench: Bench) -> None:
    done = bench("submit", "verify", here.bundle, "--backbone", "nowhere:build")
    assert done.code == 1
    assert "--backbone: backbone 'nowhere:build': No module named 'nowhere'" in done.err
    assert not here.bundle.with_name("mine.verdict.json").exists()


@pytest.mark.parametrize("name", ["os:system", "own_net:build", "a.b:c"])
def test_a_strangers_code_is_named_as_such(name: str) -> None:
    with pytest.raises(BackboneError, match=f"it is code of its author, .* give --backbone {name}$"):
        known_backbone(name)
    assert stranger_code(name, [name]) is None


@pytest.mark.parametrize("name", ["x:y; rm -rf ~", "x:$(reboot)", ":", "a:b:c", "a:b\n", "a" * 300 + ":b", "x:`id`"])
def test_advice_that_a_user_copies_into_a_shell_quotes_no_odd_name(name: str) -> None:
    assert stranger_code(name) == "no backbone can have this name"


@pytest.mark.parametrize("name", ["segformer-b0", "tiny", "fpn:resnet18", "nothing"])
def test_other_names_are_no_ones_code(name: str) -> None:
    assert stranger_code(name) is None
