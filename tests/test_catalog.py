import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_matrix
from pydantic import ValidationError

from bench import BenchError
from bench.plan.matrix import load_matrix
from pretrain_sources.card import Checkpoint
from pretrain_sources.catalog import STUDIES, UnknownSourceError, catalog, closure, collect, find_source, grid
from pretrain_sources.config_file import FileError
from pretrain_sources.variants import fields_of

KNOWN = catalog()


def test_shipped_names_are_canonical() -> None:
    for name in (*KNOWN, *STUDIES):
        assert find_source(name, KNOWN).name == name
    wanted = {"none", "none/long", "imagenet", "satir", "satir/felzenszwalb", "satir/top-4", "satir/points-16"}
    assert wanted | {"satir/rank-area", "imagenet+satir", "satir~shuffled", "satir~random-rank"} <= {*KNOWN, *STUDIES}


def test_satir_is_metas_sam_with_the_authors_recipe() -> None:
    recipe = KNOWN["satir"].recipe
    assert recipe is not None
    assert (recipe.teacher.kind, recipe.teacher.model, recipe.teacher.checkpoint) == ("sam", "vit_h", None)  # type: ignore[union-attr]
    assert (recipe.top_k, recipe.overlap, recipe.uncovered) == (9, "worse_wins", "zero")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("satir/points-16", "points_per_side", 16),
        ("satir/boxes", "prompts", "boxes"),
        ("satir/points-and-boxes", "prompts", "points+boxes"),
        ("satir/iou-0.80", "pred_iou_thresh", 0.8),
        ("satir/stability-0.9", "stability_score_thresh", 0.9),
        ("satir/top-32", "top_k", 32),
        ("satir/rank-area-ascending", "rank_by", "area_ascending"),
        ("satir/better-wins", "overlap", "better_wins"),
        ("satir/uncovered-ignore", "uncovered", "ignore"),
        ("satir/binary", "binary", True),
        ("satir/area-100", "min_area_px", 100),
        ("satir/max-area-0.5", "max_area_frac", 0.5),
        ("satir/vit-b", "model", "vit_b"),
        ("satir/crop-n-layers-1", "crop_n_layers", 1),
        ("satir/points-per-batch-16", "points_per_batch", 16),
        ("satir/felzenszwalb/scales-50x400", "scales", (50.0, 400.0)),
        ("satir/felzenszwalb/min-size-20", "min_size", 20),
    ],
)
def test_settings_in_a_name_change_one_field(name: str, field: str, value: object) -> None:
    card, base = find_source(name, KNOWN), KNOWN["satir/felzenszwalb" if "felz" in name else "satir"]
    changed = {key for key, now in fields_of(card.recipe).items() if now != fields_of(base.recipe)[key]}
    assert changed == {field}
    assert fields_of(card.recipe)[field] == value


def test_subsets_chains_and_controls() -> None:
    card = find_source("satir/top-4/n-800-groups-2", KNOWN)
    assert card.subset is not None
    assert (card.subset.n, card.subset.groups) == (800, 2)
    chain = find_source("imagenet+satir/felzenszwalb~shuffled", KNOWN)
    assert chain.control is not None
    assert (chain.start, chain.control.kind, chain.control.of) == (
        "imagenet",
        "shuffled",
        "imagenet+satir/felzenszwalb",
    )
    assert chain.recipe == KNOWN["satir/felzenszwalb"].recipe
    two = find_source("imagenet+satir/felzenszwalb+satir/top-4", KNOWN)
    assert set(closure([two], KNOWN)) == {two.name, "imagenet+satir/felzenszwalb", "imagenet"}
    permuted = find_source("satir/felzenszwalb~permuted", KNOWN)
    assert permuted.start == "satir/felzenszwalb"
    assert chain.training_data == ("ImageNet-1k",)
    assert find_source("imagenet~permuted", KNOWN).training_data == ("ImageNet-1k",)


def test_default_settings_are_not_part_of_the_name() -> None:
    assert find_source("satir/points-32/top-9", KNOWN) is KNOWN["satir"]
    names = [card.name for card in grid("satir", {"points_per_side": [16, 32], "top_k": [4, 9]}, KNOWN)]
    assert names == ["satir/top-4/points-16", "satir/points-16", "satir/top-4", "satir"]
    assert find_source("satir/points-16/top-4", KNOWN).name == "satir/top-4/points-16"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("satri", "unknown source 'satri': did you mean 'satir'?"),
        ("satir/top-0", "'satir' with top_k '0': Input should be greater than or equal to 1"),
        ("satir/pionts-16", "is not a setting of satir: did you mean 'points-...'?"),
        (
            "satir/felzenszwalb/points-16",
            "'points-16' in 'satir/felzenszwalb/points-16' is not a setting of satir/felzenszwalb",
        ),
        ("satir/felzenszwalb/boxes", "is not a setting of satir/felzenszwalb"),
        ("satir/uncovered-ignore/top-1", "'satir' with uncovered, top_k: there is only one class"),
        ("satir/n-0", "'satir' with n 0: must be at least 1"),
        ("satir/n-200pct", "up to 100pct"),
        ("satir~shufled", "unknown control 'shufled' in 'satir~shufled': did you mean 'shuffled'?"),
        ("nobody~shuffled", "unknown source 'nobody'"),
        ("none~shuffled", "'none' has no pseudo-labels to control"),
        ("pool/simmim~shuffled", "'pool/simmim' has no pseudo-labels to control"),
        ("pool/simmim/top-4", "'top-4' in 'pool/simmim/top-4' is not a setting of pool/simmim"),
        ("pool/simmim/ratio-1", "'pool/simmim' with mask_ratio '1': Input should be less than 1"),
        ("imagenet~random-rank", "'imagenet' has no pseudo-labels to control"),
        ("none~permuted", "'none' has no weights to permute"),
        ("satir/binary~random-rank", "has only one rank"),
        ("satir/top-1~random-rank", "has only one rank"),
        ("satir~shuffled~shuffled", "is already a control"),
        ("none+satir", "'none' is random"),
        ("imagenet+none", "it has no pretraining of its own"),
        ("satir/", "unknown source|is not a setting"),
        ("", "unknown source"),
    ],
)
def test_invalid_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnknownSourceError, match=message.replace("?", r"\?").replace("+", r"\+")):
        find_source(name, KNOWN)


# -- a user's own cards ----------------------------------------------------------------------------------------------------


def card(folder: Path, name: str, **fields: object) -> Path:
    path = folder / f"{name.replace('/', '-')}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "description": "One's own.", **fields}))
    return path


def test_a_users_own_card_is_a_source_like_others(tmp_path: Path) -> None:
    mine = card(tmp_path, "mine", recipe={"teacher": {"kind": "felzenszwalb"}, "top_k": 5}, training_data=[])
    path = write_matrix(tmp_path, ("none", mine.name, "mine/top-3", "mine~shuffled", "imagenet+mine"))
    matrix = load_matrix(str(path))
    assert [cell.source for cell in matrix.cells] == ["none", "mine", "mine/top-3", "mine~shuffled", "imagenet+mine"]
    assert matrix.cards["mine"].training_data == ()
    assert matrix.cards["mine/top-3"].training_data == ()
    assert matrix.cards["none"].training_data == ()
    assert find_source("satir", KNOWN).training_data != "unknown"


def test_duplicate_names_of_cards_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        card(tmp_path / name, "mine", recipe={})
    path = write_matrix(tmp_path, ("a/mine.yaml", "b/mine.yaml"))
    with pytest.raises(FileError, match=r"b/mine.yaml: duplicate name 'mine'"):
        load_matrix(str(path))
    with pytest.raises(FileError, match="duplicate name 'satir'"):
        collect([card(tmp_path, "satir", recipe={})], KNOWN)
    for name in ("satir/top-4", "satir/top-5", "satir~shuffled", "imagenet+satir"):
        with pytest.raises(FileError, match="duplicate name"):
            collect([card(tmp_path, name, recipe={})], KNOWN)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": {"topk": 3}}, "unknown key 'recipe.topk': did you mean 'top_k'?"),
        ({"recipe": {"top_k": 0}}, "recipe.top_k: Input should be greater than or equal to 1, got 0"),
        ({"recipe": {"teacher": {"kind": "sma"}}}, "sma"),
        ({"recipe": {}, "corpus": {"path": "x"}}, "recipe and corpus exclude each other"),
        ({"simmim": {}, "recipe": {}}, "simmim learns without labels"),
        ({"simmim": {"mask_ratio": 1}}, "simmim.mask_ratio: Input should be less than 1, got 1"),
        ({"simmim": {"patch": 16}}, "unknown key 'simmim.patch': did you mean 'patch_px'?"),
        (
            {"simmim": {}, "checkpoints": [{"backbones": ["tiny"], "path": "x.pth"}]},
            "checkpoints exclude recipe, corpus, simmim",
        ),
        ({"simmim": {}, "long": True}, "it excludes start, recipe, corpus and simmim"),
        ({"subset": {"n": 3}}, "subset needs a recipe or a corpus"),
        ({"recipe": {}, "subset": {}}, "a subset needs n, groups or both"),
        ({"long": True, "recipe": {}}, "long is for random weights only"),
        ({"start": "satir"}, "start 'satir' needs a recipe or a corpus to continue with"),
        ({"control": {"of": "satir", "kind": "shuffle"}}, "control.kind"),
        ({"licence": 3}, "licence"),
        ({"training_data": "all of it"}, "training_data"),
    ],
)
def test_cards_are_strict(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as wrong:
        collect([card(tmp_path, "mine", **fields)])
    assert message in str(wrong.value)
    assert "mine.yaml, line " in str(wrong.value)


def test_a_circular_chain_is_refused(tmp_path: Path) -> None:
    a = card(tmp_path, "a", recipe={}, start="b")
    b = card(tmp_path, "b", recipe={}, start="a")
    with pytest.raises(BenchError, match="circular chain of sources: a -> b -> a"):
        load_matrix(str(write_matrix(tmp_path, (a.name, b.name))))
    c = card(tmp_path, "c", control={"of": "c", "kind": "shuffled"})
    with pytest.raises(BenchError, match="circular chain of sources: c -> c"):
        load_matrix(str(write_matrix(tmp_path, (c.name,))))


def test_a_start_gets_its_canonical_name(tmp_path: Path) -> None:
    a = card(tmp_path, "a", recipe={}, start="satir/points-16/top-4")
    cards = load_matrix(str(write_matrix(tmp_path, (a.name,)))).cards
    assert set(cards) == {"a", "satir/top-4/points-16"}
    b = card(tmp_path, "b", recipe={}, start="satir")
    cards = load_matrix(str(write_matrix(tmp_path, (b.name,))), teacher="felzenszwalb").cards
    assert set(cards) == {"b", "satir/felzenszwalb"}


def test_a_control_takes_everything_from_what_it_controls(tmp_path: Path) -> None:
    kinds: tuple[dict[str, Any], ...] = ({"recipe": {}}, {"long": True}, {"start": "imagenet"})
    for fields in kinds:
        with pytest.raises(FileError, match="a control takes all settings from 'satir'"):
            collect([card(tmp_path, "mine", control={"of": "satir", "kind": "shuffled"}, **fields)], KNOWN)


def test_paths_are_not_part_of_the_identity(tmp_path: Path) -> None:
    teacher = {"kind": "sam", "model": "vit_b", "checkpoint": "x.pth"}
    (tmp_path / "x.pth").write_bytes(b"")
    known = collect([card(tmp_path, "mine", recipe={"teacher": teacher})], KNOWN)
    assert fields_of(known["mine"].recipe)["checkpoint"] == str(tmp_path / "x.pth")
    assert str(tmp_path) not in str(known["mine"].identity())


def test_a_start_or_control_of_an_unknown_source_is_refused(tmp_path: Path) -> None:
    a = card(tmp_path, "a", recipe={}, start="imagnet")
    with pytest.raises(BenchError, match="unknown source 'imagnet': did you mean 'imagenet'"):
        load_matrix(str(write_matrix(tmp_path, (a.name,))))
    b = card(tmp_path, "b", control={"of": "satri", "kind": "shuffled"})
    with pytest.raises(BenchError, match="unknown source 'satri': did you mean 'satir'"):
        load_matrix(str(write_matrix(tmp_path, (b.name,))))


def test_matrices_take_globs_and_grids(tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("none",))
    written = yaml.safe_load(path.read_text())
    written["sources"] = ["satir/top-*", {"satir/felzenszwalb": {"top_k": [3, 5], "min_area_px": [0, 20]}}]
    path.write_text(yaml.safe_dump(written))
    names = [cell.source for cell in load_matrix(str(path)).cells]
    assert names[:3] == ["satir/top-4", "satir/top-16", "satir/top-32"]
    assert set(names[3:]) == {f"satir/felzenszwalb/top-{k}{area}" for k in (3, 5) for area in ("", "/area-20")}
    written["sources"] = ["satir/top-*", {"satir": {"top_k": [4]}}]
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(BenchError, match="duplicate name 'satir/top-4'"):
        load_matrix(str(path))
    for entry, message in (
        ("satri/*", "matches no source"),
        ({"satir": {"topk": [3]}}, "has no setting 'topk': did you mean 'top_k'"),
        ({"none": {"top_k": [3]}}, "'none' has no settings of its own"),
        ({"imagenet": {"n": [3]}}, "'imagenet' has no settings of its own"),
        ({"satir~shuffled": {"top_k": [3]}}, "'satir~shuffled' has no settings of its own"),
        ({"satir": {"top_k": [0]}}, "greater than or equal to 1"),
        ({"satir": {"top_k": []}}, "no values for top_k"),
    ):
        written["sources"] = [entry]
        path.write_text(yaml.safe_dump(written))
        with pytest.raises(BenchError, match=message):
            load_matrix(str(path))


def test_another_teacher_can_replace_satirs() -> None:
    names = [cell.source for cell in load_matrix("soda-scaling", teacher="felzenszwalb").cells if cell.train_frac == 1]
    assert "satir/felzenszwalb/n-10pct" in names
    assert "imagenet+satir/felzenszwalb" in names
    assert not [name for name in names if name.startswith("satir/n")]
    mine = load_matrix("soda-scaling", teacher="fake_teacher:make")
    card = mine.cards["satir/fake_teacher.make/n-10pct"]
    assert card.recipe is not None
    assert card.recipe.teacher.entry == "fake_teacher:make"  # type: ignore[union-attr]
    with pytest.raises(BenchError, match=r"unknown teacher 'felsen'; known: felzenszwalb, oracle, sam-tiny$"):
        load_matrix("soda-scaling", teacher="felsen")


def test_protocols_without_pretraining_steps_take_no_sources_that_need_them(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="'satir' needs pretraining, but test-v1 has pretrain_steps: 0"):
        load_matrix(str(write_matrix(tmp_path, ("satir",), pretrain_steps=0)))
    with pytest.raises(BenchError, match="'none/long' needs a protocol with pretrain_steps; test-v1 sets"):
        load_matrix(str(write_matrix(tmp_path, ("none/long",), pretrain_steps=None, pretrain_epochs=1)))
    with pytest.raises(FileError, match="set either pretrain_steps"):
        load_matrix(str(write_matrix(tmp_path, ("none",), pretrain_epochs=1)))


def test_the_same_card_file_twice_is_a_duplicate(tmp_path: Path) -> None:
    path = card(tmp_path, "mine", recipe={"teacher": {"kind": "felzenszwalb"}})
    with pytest.raises(BenchError, match="duplicate name 'mine'"):
        load_matrix(str(write_matrix(tmp_path, (path.name, path.name))))


def test_globs_of_a_card_are_short_and_fast() -> None:
    """Globs become regular expressions, which the library builds without backtracking."""
    started = time.monotonic()
    for glob in ("*a" * 100, "*" * 200, "[b-z]*" * 33, "?*" * 100, "[" * 200, "*(a+)+" * 30):
        assert not Checkpoint(backbones=(glob,), path=Path("x")).is_for("a" * 200 + "!") or glob in (
            "*" * 200,
            "?*" * 100,
        )
    assert time.monotonic() - started < 5
    with pytest.raises(ValidationError, match="at most 200 characters"):
        Checkpoint(backbones=("*" * 201,), path=Path("x"))
