"""Figures of the site as Vega-Lite, and the scripts that draw them."""

import functools
from typing import Any

import altair as alt

from results.charts import Chart

DIGITS = 6  # of a number in a figure: more than a screen shows


def spec(chart: Chart) -> dict[str, Any]:
    """Return a chart as Vega-Lite. It names no address."""
    with alt.data_transformers.disable_max_rows():
        made: dict[str, Any] = chart.to_dict(validate=False)
    made.pop("$schema", None)
    short: dict[str, Any] = _short(made)
    return short


def _short(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value


@functools.cache
def vega() -> str:
    """Return the script that defines `vegaEmbed`: Vega, Vega-Lite and Vega-Embed in the version of these charts.

    It takes a few seconds; the package carries the code, so it needs no network.
    """
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return f"(()=>{{{bundle}\n}})();\n"  # its names are its own
