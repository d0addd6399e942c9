from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from pretrain_sources.yamlfile import FileError, read_yaml, suggestion


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    low: float
    high: float = 1.0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    search: Inner
    steps: int | None = None


def read(folder: Path, text: str) -> Outer:
    path = folder / "file.yaml"
    path.write_text(text)
    return read_yaml(path, Outer)


def test_a_good_file(tmp_path: Path) -> None:
    assert read(tmp_path, "name: a\nsearch: {low: 1}\n").search.low == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nsearch: {low: 1}\nstepps: 3\n", "line 3: unknown key 'stepps': did you mean 'steps'?"),
        ("name: a\nsearch:\n  low: 1\n  hihg: 2\n", "line 4: unknown key 'search.hihg': did you mean 'high'?"),
        ("name: a\nsearch:\n  low: x\n", "line 3: search.low: must be a number, found 'x'"),
        ("name: a\nsearch: 3\n", "line 2: search: must be keys and values, one a line or {key: value}, found 3"),
        ("search: {low: 1}\n", "'name' is missing"),
        ("name: a\nname: b\nsearch: {low: 1}\n", "line 2: 'name' stands twice"),
        ("name: a\nsearch: {low: 1}\nsteps: many\n", "line 3: steps: "),
        ("name: [a\n", "is not YAML"),
        ("- a\n", "expected keys and values, found a list"),
        ("", "found nothing"),
        ("name: &a [x]\nsearch: *a\n", "quote a glob: '*name'"),
        ("name: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as wrong:
        read(tmp_path, text)
    assert says in str(wrong.value)
    assert "file.yaml" in str(wrong.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileError) as wrong:
        read(tmp_path, "nmae: a\nsearch: {low: x}\n")
    assert len(str(wrong.value).splitlines()) == 3


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_yaml(tmp_path / "none.yaml", Outer)


def test_where_nothing_is_near_the_known_names_are_listed() -> None:
    assert suggestion("xyz", ["b", "a"]) == "; known: a, b"
