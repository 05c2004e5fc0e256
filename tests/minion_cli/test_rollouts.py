"""What `minion rollouts start` makes of its options."""

from datetime import timedelta

import pytest
import typer
from minion_cli.rollouts import percent_text, steps_of


def test_steps_are_percents_with_times() -> None:
    steps = steps_of("0.25:90s, 10:1h,50:1.5d,100")
    assert [step.basis_points for step in steps] == [25, 1_000, 5_000, 10_000]
    assert [step.duration.ToTimedelta() for step in steps[:3]] == [
        timedelta(seconds=90),
        timedelta(hours=1),
        timedelta(hours=36),
    ]
    assert not steps[3].HasField("duration")


@pytest.mark.parametrize("text", ["", "10:", "10:1", "10:1y", "0:1h", "101", "0.001", "x", "10,,20", "nan", "1e9"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        steps_of(text)


@pytest.mark.parametrize(
    ("points", "text"), [(1, "0.01%"), (1_000, "10%"), (10_000, "100%"), (0, "0%"), (1_250, "12.5%")]
)
def test_shares_are_written_as_percents(points: int, text: str) -> None:
    assert percent_text(points) == text
