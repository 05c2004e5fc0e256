"""The audit's rules, with nothing running."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_activity.activities.domain import bound_on_wire, time_of
from minion_grpc import wire
from uuid_utils.compat import uuid7

from tests.minion_activity.stage import id_at


def test_an_id_tells_when_it_was_made() -> None:
    before = datetime.now(UTC)
    made = time_of(uuid7())
    assert made is not None
    assert before - timedelta(milliseconds=1) <= made <= datetime.now(UTC)
    assert time_of(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - UTC is added
def test_an_id_made_of_a_moment_tells_it(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    assert time_of(UUID(id_at(moment))) == moment


@pytest.mark.parametrize(
    "other",
    [
        UUID("3b650ed0-5358-400e-9a32-6331ec339093"),
        UUID(int=0),
        UUID("01890a5d-ac96-674b-bcce-b302099a8057"),
        UUID(int=7 << 76 | 2 << 62 | 2**128 - 2**80),
    ],
)
def test_other_ids_tell_nothing(other: UUID) -> None:
    assert time_of(other) is None


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)


@given(_JSON)
def test_the_estimate_of_bytes_is_never_short(content: object) -> None:
    assert bound_on_wire(orjson.dumps(content)) >= wire.to_value(content).ByteSize()
