"""`bench compare`, `claim`, `scaling`, `report` and the views of `table`, on a store with known scores."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Bench
from examples import as_submission, record, write

from bench.cli.questions import view_text
from results import load_table, metrics
from results.evidence import Evidence, sha256
from results.record_files import write_record
from results.source_notes import STATED, source_notes
from results.store import Store

QUALITY = {"none": 0.5, "imagenet": 0.7, "satir": 0.72, "satir/n-10": 0.55, "satir/n-30": 0.62, "satir/n-100": 0.68}
IMAGES, GROUPS = 48, 12


def proof(quality: float, seed: int) -> Evidence:
    """A model that hits about this share of every class, on fixed labels."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    truth = fixed.integers(50, 200, (IMAGES, 3))
    share = np.clip(quality + 0.01 * rng.normal() + 0.05 * rng.normal(size=(IMAGES, 3)), 0, 1)
    hit = (truth * share).astype(int)
    confusion = np.zeros((IMAGES, 3, 3), int)
    for k in range(3):
        confusion[:, k, k] = hit[:, k]
        confusion[:, k, (k + 1) % 3] = truth[:, k] - hit[:, k]
    ids = np.array([f"i{i}" for i in range(IMAGES)])
    return Evidence(ids, np.array([f"g{i % GROUPS}" for i in range(IMAGES)]), confusion, share)


def board_page(site: Path) -> str:
    """Return the page of the only board of a site."""
    [page] = (site / "boards").glob("*.html")
    return page.read_text()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("asked") / "store")
    for number, (source, quality) in enumerate(QUALITY.items()):
        for i, backbone in enumerate(("tiny", "large")):
            for replicate in range(4):
                evidence = proof(quality + 0.05 * i, 100 * number + 10 * i + replicate)
                size = re.search(r"n-(\d+)", source)
                fields: dict[str, Any] = {
                    "scores": metrics.scores(evidence),
                    "evidence_sha256": sha256(evidence.to_bytes()),
                    "cell": f"{number}{i}".ljust(64, "0"),
                    "run": sha256(f"{number} {i} {replicate}".encode()),
                    "replicates": 4,
                    "settings": {"protocol": {"name": "soda-v1", "batch": 4}},
                }
                if source.startswith("satir"):
                    fields["pretraining"] = {
                        "corpus": "f" * 64,
                        "pretrain_images": int(size[1]) if size else 300,
                        "pretrain_steps": 1,
                        "pretrain_loss": 1.0,
                        "heldout_images": 0,
                        "heldout_loss_before": None,
                        "heldout_loss": None,
                        "heldout_miou": None,
                        "heldout_miou_constant": None,
                    }
                write_record(store, record(replicate, source=source, backbone=backbone, **fields), evidence)
    return store.root


def test_compare_shows_effect_interval_images_and_verdict(filled: Path, bench: Bench) -> None:
    result = bench("compare", "satir", "none", "--store", filled)
    assert result.code == 0, result.err
    assert "people-made masks" in result.out
    assert re.search(r"^all .*4 and 4", result.out, re.MULTILINE)
    assert "12 groups of 48 test images" in result.out
    assert "SUPPORTED alone and among all 15 pairs: satir is" in result.out
    one = bench(
        "compare", "satir", "none", "--store", filled, "--backbone", "tiny", "--per-class", "--metric", "weighted_f"
    )
    assert re.search(r"^person  ", one.out, re.MULTILINE)
    assert not re.search(r"^(all|large)  ", one.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "code"),
    [("satir > none by 0.05", 0), ("satir > imagenet by 0.03", 4), ("none > satir", 5), ("satir ~ none within 0.9", 0)],
)
def test_the_exit_code_of_a_claim_is_its_verdict(filled: Path, bench: Bench, text: str, code: int) -> None:
    assert bench("claim", text, "--store", filled).code == code


def test_a_claims_file_exits_with_0_only_if_all_are_as_expected(filled: Path, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text('- {claim: "satir > none", expect: supported}\n')
    assert bench("claim", "--file", path, "--store", filled).code == 0
    path.write_text('- {claim: "satir > none", expect: contradicted}\n- {claim: "satyr > none", expect: supported}\n')
    result = bench("claim", "--file", path, "--store", filled)
    assert result.code == 2
    assert "NOT AS EXPECTED (contradicted): satir > none" in result.out
    assert "not judged (supported): satyr > none" in result.out
    assert "no runs of 'satyr'" in result.out


def test_claims_as_a_markdown_table(filled: Path, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    entries = [
        {"claim": "satir > none", "expect": "supported", "says": "It | helps.", "about": "Does it?"},
        {"claim": "satir > imagenet by 0.03", "expect": "supported", "says": "A lot."},
        {"claim": "none > satir", "expect": "contradicted", "about": "Or the reverse?"},
        {"claim": "satyr > none", "expect": "supported"},
    ]
    path.write_text(yaml.safe_dump(entries))
    result = bench("claim", "--file", path, "--store", filled, "--format", "md")
    assert result.code == 2
    head, _, question, helps, much, reverse, behind, unknown, *notes = result.out.splitlines()
    assert head == "| claim | verdict | difference | 95 % | p |"
    assert (question, reverse) == ("| Does it? |  |  |  |  |", "| Or the reverse? |  |  |  |  |")
    number = r"[+-]0\.\d{4}"
    assert re.fullmatch(rf"\| It \S+ helps\. \| SUPPORTED \| {number} \| {number}\.\.{number} \| \S.* \|", helps)
    assert much.startswith("| A lot. | NOT SHOWN (expected: supported) | +0.")
    assert behind.startswith("| none > satir | CONTRADICTED | -0.")
    assert unknown == "| satyr > none | not judged (expected: supported) |  |  |  |"
    assert any(note.startswith("- Not judged (1): no runs of 'satyr'") for note in notes), notes
    assert "It | helps." in bench("claim", "--file", path, "--store", filled).out


def test_a_claims_file_excludes_filters_and_must_not_be_empty(filled: Path, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("[]")
    result = bench("claim", "--file", path, "--store", filled)
    assert (result.code, "contains no claims" in result.err) == (1, True)
    assert (
        "each claim in --file names its own"
        in bench("claim", "--file", path, "--target", "soda", "--store", filled).err
    )


def test_views_leave_out_stale_and_leaking_cells(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    more: list[tuple[str, dict[str, Any]]] = [("none", {}), ("none", {"finished": "2000-01-01T00:00:00+00:00"})]
    more += [("satir", {"leak": "it saw the test"}), ("other", {"leak": "it saw the test"})]
    for number, (source, changes) in enumerate(more):
        for replicate in range(3):
            evidence = proof(0.5 + 0.1 * number, replicate)
            made: dict[str, Any] = {"scores": metrics.scores(evidence), "evidence_sha256": sha256(evidence.to_bytes())}
            write_record(store, record(replicate, source=source, cell=f"{number}" * 64, **made, **changes), evidence)
    for view in ("--per-class", "--tuning"):
        result = bench("table", view, "--store", store.root).out
        assert len(re.findall(r"^none  ", result, re.MULTILINE)) == 1, "not the old identity too"
        assert not re.search(r"^satir  ", result, re.MULTILINE)
        assert "\nleft out, other x tiny, satir x tiny: it saw the test\n" in result, "one reason, one line"
    assert bench("report", "--out", tmp_path / "r", "--store", store.root).code == 0
    assert "it saw the test" in board_page(tmp_path / "r")
    runs = pd.read_csv(tmp_path / "r" / "runs.csv")
    assert json.loads(runs["class_iou"][0]) == load_table(store.root)["class_iou"][0].tolist()


def test_scaling_lists_sizes_and_draws_a_chart(filled: Path, bench: Bench, tmp_path: Path) -> None:
    result = bench("scaling", "--axis", "n", "--source", "satir", "--store", filled, "--out", tmp_path / "curve.png")
    assert result.code == 0, result.err
    for size in (10, 30, 100, 300):
        assert re.search(rf"^{size} ", result.out, re.MULTILINE)
    assert re.search(r"^(still rising|unclear|plateau): ", result.out, re.MULTILINE)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    bad = bench("scaling", "--source", "satir", "--store", filled, "--out", tmp_path / "curve.gif")
    assert bad.code == 1
    assert ".png or .svg" in bad.err


def labelled(root: Path, sources: dict[str, float], replicates: int) -> Path:
    """A store whose sources were finetuned on four shares of the labels."""
    store = Store(root)
    for number, (source, quality) in enumerate(sources.items()):
        for i, share in enumerate((0.1, 0.3, 0.6, 1.0)):
            for replicate in range(replicates):
                evidence = proof(quality + 0.08 * i, 100 * number + 10 * i + replicate)
                made: dict[str, Any] = {
                    "scores": metrics.scores(evidence),
                    "evidence_sha256": sha256(evidence.to_bytes()),
                }
                made |= {"train_frac": share, "cell": f"{number}{i}".ljust(64, "0"), "replicates": replicates}
                write_record(store, record(replicate, source=source, **made), evidence)
    return store.root


def test_saved_labels_and_why_an_interval_is_missing(bench: Bench, tmp_path: Path) -> None:
    words = ["scaling", "--axis", "train_fraction", "--source", "imagenet", "--store"]
    result = bench(*words, labelled(tmp_path / "a", {"none": 0.4, "imagenet": 0.5}, 4)).out
    assert re.search(r"^0\.1 .* \d+% \(\d+% to \d+%\)", result, re.MULTILINE), result
    assert re.search(r"^1 .* beyond the measured range", result, re.MULTILINE), result
    few = bench(*words, labelled(tmp_path / "b", {"none": 0.4, "imagenet": 0.5}, 2)).out
    assert re.search(r"^0\.1 .*% \(no interval under 3 replicates\)", few, re.MULTILINE), few
    alone = bench(*words, labelled(tmp_path / "c", {"imagenet": 0.5}, 4))
    assert alone.code == 0, alone.err
    assert "labels that 'none' needs" not in alone.out


def test_the_views_of_the_table(filled: Path, bench: Bench) -> None:
    tiers = bench("table", "--tiers", "--store", filled).out
    assert re.search(r"^1 +satir ", tiers, re.MULTILINE)
    assert "does not mean that they are equal" in tiers
    latex = bench("table", "--tiers", "--format", "latex", "--store", filled).out
    assert r"\begin{tabular}{lllllll}" in latex
    assert "satir/n-10" in bench("table", "--per-class", "--store", filled).out
    assert "best of 2" in bench("table", "--tuning", "--store", filled).out
    assert STATED in bench("table", "--sources", "--store", filled).out
    one = bench("table", "--tiers", "--backbone", "tiny", "--format", "csv", "--store", filled).out
    assert pd.read_csv(io.StringIO(one))["backbones"].tolist() == [1] * len(QUALITY)
    both = bench("table", "--tiers", "--per-class", "--store", filled).out
    assert tiers.strip() in both
    assert bench("table", "--per-class", "--store", filled).out.strip() in both
    assert "writes one table" in bench("table", "--tiers", "--per-class", "--format", "csv", "--store", filled).err
    rows = json.loads(bench("table", "--per-class", "--format", "json", "--store", filled).out)
    assert len(rows) == 2 * len(QUALITY)
    assert (
        "no runs on 'huge' on this board; choose one of large, tiny"
        in bench("table", "--tiers", "--backbone", "huge", "--store", filled).err
    )


def test_licences_and_what_sources_have_seen() -> None:
    stated = [("a", None, None), ("a", "MIT", "x; y"), ("b", None, None), ("b", None, None), ("c", None, "unknown")]
    rows = source_notes(pd.DataFrame(stated, columns=["source", "licence", "has_seen"]).astype(object))
    found = rows.astype(object).where(rows.notna(), None).itertuples(index=False, name=None)
    assert list(found) == [("a", "MIT", "x; y"), ("b", None, None), ("c", None, "unknown")]


def test_filters_select_rows_and_keep_ranks(filled: Path, bench: Bench) -> None:
    whole = json.loads(bench("table", "--format", "json", "--store", filled).out)
    part = json.loads(bench("table", "--format", "json", "--backbone", "tiny", "--store", filled).out)
    assert part == [row for row in whole if row["backbone"] == "tiny"]
    assert bench("table", "--target", "soda", "--store", filled).code == 0
    assert "no runs match --target" in bench("table", "--target", "sodda", "--store", filled).err
    assert "--metric applies only to" in bench("table", "--metric", "weighted_f", "--store", filled).err


def test_text_around_a_table_is_comments_in_latex(filled: Path, bench: Bench) -> None:
    for view in ([], ["--tiers"], ["--per-class"]):
        lines = bench("table", *view, "--format", "latex", "--store", filled).out.splitlines()
        inside = False
        for line in filter(None, lines):
            inside |= line.startswith(r"\begin{tabular}")
            assert inside or line.startswith("%"), line
            inside &= not line.startswith(r"\end{tabular}")


def test_a_report_has_curves_and_no_verdicts_of_its_own(filled: Path, bench: Bench, tmp_path: Path) -> None:
    assert bench("report", "--out", tmp_path / "r", "--store", filled).code == 0
    page = board_page(tmp_path / "r")
    assert "<h2>satir over" in page
    assert "satir/n-30" in page
    assert "everywhere scores" in page
    assert "SUPPORTED" not in page


def test_text_of_a_record_is_shown_as_text(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for replicate in range(3):
        evidence = proof(0.5, replicate)
        made: dict[str, Any] = {"scores": metrics.scores(evidence), "evidence_sha256": sha256(evidence.to_bytes())}
        name = "<script>alert(1)</script>"
        write_record(store, record(replicate, source=name, label_note=name, **made), evidence)
    assert bench("report", "--out", tmp_path / "r", "--store", store.root).code == 0
    for path in (tmp_path / "r").rglob("*.html"):
        assert "<script>" not in path.read_text(), path


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "satir", "imagenet", "--per-class"],
        ["claim", "satir > imagenet by 0.001"],
        ["scaling", "--source", "satir"],
        ["table", "--format", "json"],
        ["table", "--tiers"],
        ["table", "--tuning"],
    ],
)
def test_all_answers_follow_from_records_and_evidence_alone(
    words: list[str], filled: Path, bench: Bench, tmp_path: Path
) -> None:
    first = bench(*words, "--store", filled).out
    bare = tmp_path / "bare"
    for path in [*filled.rglob("record.json"), *filled.rglob("evidence.npz")]:
        kept = bare / path.relative_to(filled)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
    assert first
    assert bench(*words, "--store", bare).out == first


def test_a_source_that_shares_no_backbone_has_no_tier_and_breaks_no_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for source, backbone in (("none", "tiny"), ("imagenet", "tiny"), ("mine", "large")):
        for replicate in range(3):
            cell = sha256(f"{source}{backbone}".encode())
            write(store, record(replicate, source=source, backbone=backbone, cell=cell))
    result = view_text(store, "tiers", "miou", "table", None)
    assert [line.split()[0] for line in result.splitlines() if " mine " in line] == ["-"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytes(range(256)), "is not UTF-8 text"),
        (b"[" * 60_000, "nested more than 50 deep"),
        (b"- {claim: 2026-99-99, expect: supported}", "is not a date; quote it"),
        (b"- {claim: a > b, expect: supported, train_frac: " + b"9" * 5000 + b"}", "a number of 5000 characters"),
        (b"- {claim: a > b, claim: b > a, expect: supported}", "duplicate key 'claim'"),
        (b"claim: a > b", "expected a list"),
    ],
)
def test_an_invalid_claims_file_is_an_error(data: bytes, says: str, filled: Path, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_bytes(data)
    result = bench("claim", "--file", tmp_path / "claims.yaml", "--store", filled)
    assert result.code == 1
    assert says in result.err


@pytest.mark.parametrize("ranked", [True, False])
def test_table_and_report_mark_a_submission_alike(ranked: bool, bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for number, source in enumerate(("none", "mine")):
        for i in range(3):
            write(store, record(i, 10 * number + i, source=source, cell=f"{number}" * 64, ranked=ranked))
    as_submission(store, "mine")
    marked = "mine (submitted, recomputed)"
    for form in ("table", "md", "latex"):
        result = bench("table", "--format", form, "--store", store.root)
        assert marked in result.out
        assert ("TOO SHORT TO RANK" in result.out) == (not ranked)
    assert bench("report", "--out", tmp_path / "r", "--store", store.root).code == 0
    page = board_page(tmp_path / "r")
    assert f'sources/mine.html">{marked}<' in page
    assert 'sources/none.html">none<' in page
    assert ("TOO SHORT TO RANK" in page) == (not ranked)
    for words in (
        ["table", "--tiers"],
        ["table", "--per-class"],
        ["compare", "mine", "none"],
        ["claim", "mine > none"],
    ):
        assert "mine was submitted" in bench(*words, "--store", store.root).out, words


def test_classes_named_like_columns(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for i in range(3):
        write(store, record(i, i, classes=["source", "x", "x"]))
    result = bench("table", "--per-class", "--format", "json", "--store", store.root)
    assert list(json.loads(result.out)[0]) == ["source", "backbone", "n", "source (2)", "x", "x (2)"]
