"""User code named in cards: checked before any of it runs, and unable to end the program."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Bench, write_matrix
from submitted import Packed, pack_one

from pretrain_sources.recipe import PythonTeacher, SamTeacher
from pretrain_sources.teachers import TeacherError, entry_point, obstacle, open_teacher, own

Write = Callable[[str, str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write an importable module that creates the file RAN when it runs; return the path of RAN."""
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))

    def write(name: str, source: str) -> str:
        path = (tmp_path / "lib").joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in [p for p in path.parents if p != tmp_path / "lib" and tmp_path / "lib" in p.parents]:
            (parent / "__init__.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
        path.write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n{source}")
        return str(tmp_path / "RAN")

    yield write
    for name in [name for name in sys.modules if name.startswith("lib_")]:
        del sys.modules[name]


MARK = "from pretrain_sources.teachers import offered\n\n@offered\n"
HOT = "def hot():\n    return print\n"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("unittest.__main__:main", "unittest.__main__ is a program, not a module to import"),
        ("__main__:x", "__main__ is a program"),
        ("this:s", "no function this:s: .* has no such function at its top level"),
        ("antigravity:x", "no function antigravity:x"),
        ("os:getcwd", "is not offered to cards"),
        ("builtins:dict", "is not offered to cards"),
        ("numpy.random._mt19937:MT19937", "is not offered to cards"),
        ("nowhere.at.all:x", "No module named 'nowhere'"),
        ("json.nowhere:x", "No module named 'json.nowhere'"),
        ("json.decoder.nowhere:x", "No module named 'json.decoder.nowhere'"),
    ],
)
def test_code_that_is_not_offered_is_not_imported(entry: str, message: str) -> None:
    before = set(sys.modules)
    for find in (entry_point, own):
        with pytest.raises(TeacherError, match=message):
            find(entry)
    stop = obstacle(PythonTeacher(entry=entry, version="1"), Path())
    assert stop is not None
    assert re.search(message, stop)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HOT, "is not offered to cards: decorate it with @pretrain_sources.teachers.offered"),
        ("raise SystemExit('bye')\n", "no function lib_a.inner:hot"),
        ("import sys\nsys.exit(3)\n" + HOT, "is not offered"),
        ("hot = print\n", "no function lib_a.inner:hot: .*inner.py has no such function at its top level"),
        ("def other():\n    @offered\n    def hot(): ...\n", "no function lib_a.inner:hot"),
        (MARK + HOT + HOT, "is not offered"),
        ("def hot(:\n", "cannot be read as Python"),
        ("x = '\\0'\n".replace("\\0", "\0"), "cannot be read as Python"),
        ("x = " + "(" * 5000, "cannot be read as Python"),
        ("x = " + "-" * 100_000 + "1", "cannot be read as Python"),
    ],
)
def test_a_module_without_the_mark_is_parsed_but_not_run(source: str, message: str, module: Write) -> None:
    ran = module("lib_a.inner", source)
    with pytest.raises(TeacherError, match=message):
        entry_point("lib_a.inner:hot")
    assert not Path(ran).exists(), "neither the module nor its package was imported"


@pytest.mark.parametrize(
    "mark",
    [
        MARK,
        "import pretrain_sources.teachers\n\n@pretrain_sources.teachers.offered\n",
        "from pretrain_sources import teachers\n\n@teachers.offered\n",
    ],
)
def test_a_marked_function_is_found(mark: str, module: Write) -> None:
    ran = module("lib_b.inner", mark + HOT)
    teacher = own("lib_b.inner:hot")
    assert obstacle(teacher, Path()) is None
    assert not Path(ran).exists(), "nothing runs before it is opened"
    assert entry_point("lib_b.inner:hot")() is print
    module("lib_b.inner", mark + HOT + "# other\n")
    assert own("lib_b.inner:hot").version != teacher.version


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit(0)\n", "lib_c cannot be imported: SystemExit"),
        ("import sys\nsys.exit()\n", "lib_c cannot be imported: SystemExit"),
        ("1 / 0\n", "lib_c cannot be imported: ZeroDivisionError"),
        ("import nowhere_at_all\n", "lib_c cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("hot = print\n", "lib_c:hot is not offered"),
    ],
)
def test_a_marked_module_that_ends_the_program_does_not(source: str, message: str, module: Write) -> None:
    module("lib_c", MARK + HOT + source)
    for settings in (PythonTeacher(entry="lib_c:hot", version="1"), SamTeacher(model="lib_c:hot", checkpoint="x")):
        with pytest.raises(TeacherError, match=message):
            entry_point(settings.entry if isinstance(settings, PythonTeacher) else settings.model)


def test_a_teacher_that_exits_raises_a_teacher_error(module: Write) -> None:
    module("lib_d", f"import sys\n{MARK}def hot():\n    sys.exit(0)\n")
    with pytest.raises(TeacherError, match=r"lib_d:hot could not be opened: SystemExit: 0 \(.*lib_d.py, line 7\)"):
        open_teacher(PythonTeacher(entry="lib_d:hot", version="1"), Path())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return lambda image: sys.exit(0)", "lib_e:hot failed on .*SystemExit: 0"),
        ("return lambda image: os._exit(0)", "a worker process of the teacher died"),
    ],
)
def test_a_teacher_that_ends_its_process_gives_an_error_message(
    body: str, message: str, module: Write, scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    module("lib_e", f"import os, sys\n{MARK}def hot():\n    {body}\n")
    words = ("--teacher", "lib_e:hot", "--out", tmp_path / "c", "--jobs", 2)
    done = bench("corpus", "make", "--pool", scenes / "scenes" / "unlabelled", *words)
    assert done.code == 1
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "entry", ["a:b:c", ":", ":x", "a:", "a b:c", "a..b:c", ".a:b", "a.:b", "1:x", "a:b\n", "a" * 150 + ":x"]
)
@pytest.mark.parametrize("command", ["corpus", "run"])
def test_an_invalid_entry_point_is_refused(
    entry: str, command: str, scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    pool = scenes / "scenes" / "unlabelled"
    calls = {
        "corpus": ("corpus", "make", "--pool", pool, "--out", tmp_path / "c"),
        "run": ("run", "--matrix", "demo", "--data", scenes),
    }
    done = bench(*calls[command], "--teacher", entry)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "module:function" in done.err or "No module named" in done.err


def stranger(folder: Path) -> Path:
    """A card that names code."""
    folder.mkdir(exist_ok=True)
    teacher = {"kind": "python", "entry": "lib_f:hot", "version": "1"}
    fields = {"name": "mine", "description": "x", "licence": "x", "contact": "x", "training_data": []}
    (folder / "card.yaml").write_text(yaml.safe_dump(fields | {"recipe": {"teacher": teacher}}))
    return folder


def test_checking_a_card_imports_nothing(module: Write, scenes: Path, bench: Bench, tmp_path: Path) -> None:
    ran = module("lib_f", MARK + HOT)
    mine = stranger(tmp_path / "mine")
    assert bench("submit", "check", mine).code == 0
    assert bench("plan", "--matrix", write_matrix(tmp_path), "--source", mine, "--data", scenes).code == 0
    assert not Path(ran).exists()


@pytest.fixture(scope="module")
def packed(scenes: Path, tmp_path_factory: pytest.TempPathFactory, shipped_protocol: None) -> Packed:
    return pack_one(scenes, tmp_path_factory.mktemp("packed"))


def test_a_card_in_a_bundle_imports_nothing(module: Write, packed: Packed, bench: Bench, tmp_path: Path) -> None:
    ran = module("lib_f", MARK + HOT)
    here = packed.copy(tmp_path)
    stranger(here.bundle)
    here.repack()
    done = bench("submit", "verify", here.bundle, "--manifest", here.manifest)
    assert done.code == 2, "its runs are of a checkpoint"
    assert "FAULT" in done.out
    bench("table", "--store", tmp_path / "bench-store")
    bench("table", "--store", here.bundle / "runs")
    assert not Path(ran).exists()


def test_a_failing_builder_of_a_sam_raises_a_teacher_error(module: Write, tmp_path: Path) -> None:
    module("lib_g", f"import sys\n{MARK}def hot():\n    sys.exit(0)\n")
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(TeacherError, match=r"lib_g:hot could not be opened: SystemExit: 0 \(.*lib_g.py, line 7\)"):
        open_teacher(SamTeacher(model="lib_g:hot", checkpoint=str(tmp_path / "weights.pth")), tmp_path)
