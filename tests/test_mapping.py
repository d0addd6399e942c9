"""Reduced class sets: effect on labels, counts, records and the board; invalid maps."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Bench, protocol_fields, write_matrix

from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.spec import Protocol
from bench.targets import open_target, shipped_targets
from bench.targets.mapping import map_target
from bench.train.batches import open_split
from pretrain_sources.config_file import FileError
from pretrain_sources.image_files import decode_label
from results import load_table

NAMED = {"ground": ("road", "grass", "sidewalk"), "warm": ("person", "car"), "ignore": ("sky", "river")}
REST = tuple(name for name in shipped_targets()["soda"].classes if not any(name in of for of in NAMED.values()))
MAP = [{"name": "rest", "of": list(REST)}, *({"name": name, "of": list(of)} for name, of in NAMED.items())]


def test_labels_and_counts_use_the_new_classes(scenes: Path) -> None:
    plain = open_target("scenes", scenes)
    protocol = Protocol.model_validate(protocol_fields(class_map=MAP, max_frames=None))
    target = map_target(plain, protocol.class_map)
    assert target.spec.classes == ("rest", "ground", "warm")
    total = np.zeros(256, dtype=int)
    for frame, decoded in zip(plain.splits["train"], open_split(target, "train", protocol), strict=True):
        stored = decode_label(frame.label.read_bytes())
        for label, names in ((0, REST), (1, NAMED["ground"]), (2, NAMED["warm"]), (255, NAMED["ignore"])):
            old = [plain.spec.classes.index(name) for name in names]
            assert ((decoded.label == label) == (np.isin(stored, old) | ((stored == 255) & (label == 255)))).all()
        total += np.bincount(decoded.label.ravel(), minlength=256)
    counted = np.array([target.facts[frame.id].pixels for frame in target.splits["train"]]).sum(0)
    assert counted.tolist() == [*total[:3], total[255]]
    assert min(counted) > 0


def test_reduced_sets_are_labelled_and_ranked_apart_from_the_full_set(bench: Bench, tmp_path: Path) -> None:
    full = write_matrix(tmp_path / "full", replicates=1, trials=1)
    reduced = write_matrix(tmp_path / "reduced", replicates=1, trials=1, class_map=MAP)
    for path in (full, reduced):
        assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    table = load_table(tmp_path / "store")
    assert sorted(len(classes) for classes in table["classes"]) == [3, 21]
    assert table["protocol_hash"].nunique() == 2
    out = bench("table").out
    assert "3 classes made of 21: rest = background + building" in out
    assert "ground = road + grass + sidewalk, warm = person + car, ignore = sky + river" in out
    rows = json.loads(bench("table", "--format", "json").out)
    assert [row["rank"] for row in rows] == [1, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            [{"name": "a", "of": ["background"]}, {"name": "b", "of": ["persn"]}],
            "no class 'persn': did you mean 'person'?",
        ),
        ([{"name": "a", "of": ["background"]}, {"name": "b", "of": ["person"]}], "omits building, tree"),
        ([MAP[1], MAP[0], *MAP[2:]], "must include 'background'"),
        ([MAP[-1], *MAP[:-1]], "must include 'background'"),
    ],
)
def test_a_map_that_does_not_fit_the_target_is_refused(change: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=says.replace("?", r"\?")):
        load_matrix(str(write_matrix(tmp_path, class_map=change)))
    with pytest.raises(BenchError, match="hit-uav has no class '"):
        load_matrix(str(write_matrix(tmp_path, class_map=MAP)), target="hit-uav")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ([*MAP, {"name": "again", "of": ["person"]}], "duplicate class 'person'"),
        ([*MAP, {"name": "rest", "of": ["x"]}], "duplicate name 'rest'"),
        ([{"name": "all", "of": list(shipped_targets()["soda"].classes)}], "at least two classes"),
        ([*MAP[:-1], MAP[-1] | {"name": "Ignored"}], "'Ignored' would be a class; name it 'ignore'"),
        ([*MAP, {"name": "empty", "of": []}], "at least 1 entry"),
        ({"rest": "background"}, "class_map"),
    ],
)
def test_an_invalid_map_is_refused(change: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(protocol_fields(class_map=change)))
    (tmp_path / "m.yaml").write_text("{target: soda, protocol: p.yaml, sources: [none], backbones: [tiny]}")
    with pytest.raises(FileError, match=says):
        load_matrix(str(tmp_path / "m.yaml"))


def test_the_order_of_the_classes_is_part_of_the_identity() -> None:
    one, other = (
        Protocol.model_validate(protocol_fields(class_map=order)).identity()
        for order in (MAP, [MAP[0], MAP[2], MAP[1], MAP[3]])
    )
    assert json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
