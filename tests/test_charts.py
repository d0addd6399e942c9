"""Charts of results."""

import json

import pandas as pd
import pytest

from results.charts import MOST_POINTS, history_chart


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 420, 160_000])
def test_loss_of_a_long_training_is_drawn_at_few_steps(steps: int) -> None:
    """A page of a run stays small, whatever its length; the rolling mean is over all steps, and the last step is drawn."""
    history = pd.DataFrame({"step": range(1, steps + 1), "loss": [1.0, 0.0] * (steps // 2) + [1.0] * (steps % 2)})
    [points] = json.loads(history_chart(history).to_json())["datasets"].values()
    assert min(steps, MOST_POINTS // 2) <= len(points) <= MOST_POINTS
    assert points[-1]["step"] == steps
    assert steps < 420 or points[-1]["mean"] == pytest.approx(0.5, abs=0.05)
