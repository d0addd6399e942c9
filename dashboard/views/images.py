"""Predictions of two sources side by side, on the fixed sample of test images in the store."""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import choice, plain, two_sources
from results import charts, over_images, prediction_samples
from results.board_choice import UnanswerableError
from results.escape import without_paths
from results.record import TEST
from results.store import StoreError


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("Images")
    store, first = chosen.contents.store, chosen.whole.iloc[0]
    if first["test_split"] != TEST:
        st.info("The sample of predictions is of the split test: choose it in the sidebar.")
        return
    pair = two_sources(chosen)
    if pair is None:
        return
    data, a, b = pair
    for note in (data.about[name] for name in (a, b) if name in data.about):
        st.caption(plain(f"{note}."))
    backbone = choice("Backbone", data.common(a, b), "on")
    if backbone is None:
        st.info(plain(f"{a} and {b} have no common backbone."))
        return
    images_file, labels_file = prediction_samples.truth_files(
        store, str(first["target_hash"]), str(first["protocol_hash"])
    )
    truth, frames = prediction_samples.read(labels_file), prediction_samples.read(images_file)
    files = [prediction_samples.predictions_file(store, _first_run(data.runs, name, backbone)) for name in (a, b)]
    sides = [prediction_samples.read(path) for path in files]
    kinds = (frames, truth, *sides)
    shapes = {name: {_shape(kind.get(name)) for kind in kinds} for name in truth}
    common = [name for name, of_name in shapes.items() if len(of_name) == 1 and None not in of_name]
    if not common:
        st.info("This store has no sample images: they stay on the machine that made the runs.")
        return
    try:
        differences = over_images.image_differences(store, data, a, b, backbone).set_index("image")["difference"]
    except (UnanswerableError, StoreError) as error:
        st.info(plain(without_paths(str(error), store.root)))
        return
    classes = list(first["classes"])
    colours = charts.class_colours(len(classes))
    st.image(charts.legend(classes, colours), width="content")
    st.caption(plain(f"Replicate 0 of each. Blue: only {a} is correct. Orange: only {b} is correct."))
    for name in sorted(common, key=lambda name: -abs(differences.get(name, 0.0))):
        st.caption(plain(f"{name}: difference in mIoU {differences.get(name, np.nan):+.3f}, averaged over all runs"))
        correct = [side[name] == truth[name] for side in sides]
        shown = [  # not a dict: a source may be named 'truth'
            ("image", frames[name]),
            ("truth", charts.painted(truth[name], colours)),
            (a, charts.painted(sides[0][name], colours)),
            (b, charts.painted(sides[1][name], colours)),
            ("difference", charts.difference(frames[name], correct[0] & ~correct[1], correct[1] & ~correct[0])),
        ]
        for column, (title, picture) in zip(st.columns(len(shown)), shown, strict=True):
            column.image(picture, caption=plain(title), width="stretch")


def _shape(picture: prediction_samples.Pixels | None) -> tuple[int, ...] | None:
    """Return the shape of a valid picture: uint8, (H, W), not empty."""
    good = picture is not None and picture.dtype == np.uint8 and picture.ndim == 2 and picture.size
    return picture.shape if picture is not None and good else None


def _first_run(runs: pd.DataFrame, source: str, backbone: str) -> str:
    of_cell = runs[(runs["source"] == source) & (runs["backbone"] == backbone)]
    return str(of_cell.sort_values("replicate")["run"].iloc[0])
