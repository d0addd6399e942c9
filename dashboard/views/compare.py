"""Comparison of two sources: overall, per class and per image."""

import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import figure, plain, table, two_sources
from results import charts, image_bootstrap
from results.board_choice import UnanswerableError
from results.claims import Claim, judge, sentence
from results.compare import compare, compare_classes
from results.escape import without_paths
from results.replicate_scores import METRICS, Samples
from results.store import StoreError


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
    for (name, place), why in data.left_out.items():
        if name in (a, b):
            st.caption(plain(f"Left out, {name} × {place}: {why}"))
    figure(charts.forest_chart(rows, a, b, METRICS[chosen.metric]), "difference")
    table(
        rows, "difference", {"shown": "could show", "p_holm": "p Holm", "mean_a": "A", "mean_b": "B", "why_not": "note"}
    )
    (low, high), note = image_bootstrap.interval(chosen.contents.store, data, a, b, chosen.metric, None)
    st.caption(plain(note) if low is None else plain(f"{note} 95 % interval over images: {low:+.4f} to {high:+.4f}."))
    st.subheader("Classes")
    table(compare_classes(chosen.whole, a, b, chosen.metric), "classes", {"p_holm": "p Holm", "why_not": "note"})
    st.subheader("Test images with the largest differences")
    st.caption("mIoU of each image, averaged over the runs of each source on their common backbones.")
    table(image_bootstrap.image_differences(chosen.contents.store, data, a, b), "images")
