"""Comparison of two sources: overall, per class and per image."""

import pandas as pd
import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import figure, plain, table, two_sources
from results import charts
from results.board_choice import UnanswerableError
from results.claims import Claim, judge, sentence
from results.compare import HOW, INTERVALS, compare, compare_classes, p_text
from results.escape import without_paths
from results.over_images import image_differences
from results.replicate_scores import METRICS, Samples
from results.store import StoreError

CLASS_TITLES = {"low": "95 % trainings, low", "high": "high", "p_holm": "p Holm over classes", "why_not": "note"}


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("Compare two sources")
    pair = two_sources(chosen)
    if pair is None:
        return
    data, a, b = pair
    try:
        _pair(chosen, data, a, b)
    except (UnanswerableError, StoreError) as error:  # the store may have changed while the page is open
        st.info(plain(without_paths(str(error), chosen.contents.store.root)))


def _pair(chosen: Chosen, data: Samples, a: str, b: str) -> None:
    rows = compare(data, a, b)
    st.info(plain(sentence(judge(Claim(a, ">", b, 0.0, chosen.metric, None), data))))
    for note in data.left_out_notes(a, b):
        st.caption(plain(note))
    figure(charts.forest_chart(rows, a, b, METRICS[chosen.metric]), "difference")
    table(shown(rows), "difference", {"shown": "could show", "p_holm": "p Holm"}, download=rows)
    st.caption(plain(*dict.fromkeys(rows["images"]), " ".join(HOW.split())))
    st.subheader("Classes")
    table(compare_classes(chosen.whole, a, b, chosen.metric), "classes", CLASS_TITLES)
    st.subheader("Test images with the largest differences")
    st.caption("mIoU of each image, averaged over the runs of each source on their common backbones.")
    table(image_differences(chosen.contents.store, data, a, b), "images")


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns to show, each interval as text. rows: from `results.compare.compare`."""
    made = rows[["backbone", "mean_a", "mean_b", "effect"]].set_axis(["backbone", "A", "B", "A - B"], axis="columns")
    for kind in INTERVALS:
        ends = zip(rows[f"{kind}_low"], rows[f"{kind}_high"], strict=True)
        texts = ["" if pd.isna(low) else f"{low:.4f} to {high:.4f}" for low, high in ends]
        # With a hyphen in front a text could be a formula, and would be shown with a quote.
        made[f"95 % {kind}"] = [text.replace("-", "\u2212") for text in texts]
    made = made.assign(p=rows["p"].map(p_text), p_holm=rows["p_holm"].map(p_text))
    return made.join(rows[["shown", "n_a", "n_b"]]).assign(note=rows["why_not"])
