"""Where a run's time goes: every moment counts once."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st
from minion_gateway.runs.timing import Part, RunTime


class Clock:
    """A clock that the tests wind on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_waited_for_at_once_counts_once_and_the_rest_is_ours() -> None:
    clock = Clock()
    time = RunTime(monotonic=clock)
    clock.now += 1
    with time.waiting_for(Part.PROVIDER):
        clock.now += 2
    with time.waiting_for(Part.TOOLS):
        clock.now += 4
        with time.waiting_for(Part.TOOLS):
            clock.now += 8
        clock.now += 16
    clock.now += 32
    assert time.split() == {Part.OWN: 33, Part.PROVIDER: 2, Part.TOOLS: 28}
    clock.now += 64
    assert time.split()[Part.OWN] == 97


def test_calls_that_overlap_count_from_the_first_to_the_last() -> None:
    clock = Clock()
    time = RunTime(monotonic=clock)
    first, second = ExitStack(), ExitStack()
    first.enter_context(time.waiting_for(Part.TOOLS))
    clock.now += 1
    second.enter_context(time.waiting_for(Part.TOOLS))
    clock.now += 2
    first.close()
    clock.now += 4
    second.close()
    assert time.split() == {Part.OWN: 0, Part.PROVIDER: 0, Part.TOOLS: 7}


def test_a_wait_that_fails_has_ended() -> None:
    clock = Clock()
    time = RunTime(monotonic=clock)
    try:
        with time.waiting_for(Part.PROVIDER):
            clock.now += 1
            raise ConnectionError
    except ConnectionError:
        clock.now += 2
    assert time.split() == {Part.OWN: 2, Part.PROVIDER: 1, Part.TOOLS: 0}


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from((Part.PROVIDER, Part.TOOLS)), st.integers(0, 1_000)), max_size=40
    )
)
def test_the_parts_always_add_up(moves: list[tuple[int, Part, int]]) -> None:
    """Each of ten waits begins, or ends where it has begun, and time passes."""
    clock = Clock()
    time = RunTime(monotonic=clock)
    waits: dict[int, tuple[Part, ExitStack]] = {}
    expected = dict.fromkeys(Part, 0)
    for number, part, passes in moves:
        if number in waits:
            waits.pop(number)[1].close()
        else:
            wait = ExitStack()
            wait.enter_context(time.waiting_for(part))
            waits[number] = (part, wait)
        clock.now += passes
        waited_for = {each for each, _ in waits.values()}
        first = next((each for each in (Part.PROVIDER, Part.TOOLS) if each in waited_for), Part.OWN)
        expected[first] += passes
    assert time.split() == expected
    assert sum(time.split().values()) == clock.now - 100
