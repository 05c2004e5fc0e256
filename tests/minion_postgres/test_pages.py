"""Page tokens: what goes in comes out, and nothing else does."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_errors import InvalidArgument
from minion_postgres import pages

FILTERS = {"status": "active", "labels": ["a", "b"]}
KINDS = (datetime, UUID, int, str)
CURSOR = (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), uuid4(), 42, "ünïcode")


def forge(*values: object) -> str:
    """Makes a token with the right filters and any values in it."""
    whole = pages.encode(CURSOR, FILTERS)
    version, digest, *_ = orjson.loads(base64.urlsafe_b64decode(whole + "=="))
    return base64.urlsafe_b64encode(orjson.dumps([version, digest, *values])).decode().rstrip("=")


def refused(token: str, kinds: tuple[type, ...] = KINDS) -> None:
    with pytest.raises(InvalidArgument) as caught:
        pages.decode(token, FILTERS, kinds)
    assert caught.value.reason == "PAGE_TOKEN_INVALID"
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def test_a_cursor_comes_back_exactly() -> None:
    assert pages.decode(pages.encode(CURSOR, FILTERS), FILTERS, KINDS) == CURSOR


def test_times_of_any_zone_come_back_as_the_same_moment() -> None:
    time = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert pages.decode(pages.encode((time,), {}), {}, (datetime,)) == (time,)
    with pytest.raises(TypeError):
        pages.encode((datetime(2026, 1, 1),), {})  # noqa: DTZ001 - that is the point


def test_other_filters_are_refused_and_their_order_does_not_matter() -> None:
    token = pages.encode(CURSOR, FILTERS)
    assert pages.decode(token, {"labels": ["a", "b"], "status": "active"}, KINDS) == CURSOR
    for filters in ({}, {**FILTERS, "status": "closed"}, {**FILTERS, "more": 1}):
        with pytest.raises(InvalidArgument):
            pages.decode(token, filters, KINDS)


@pytest.mark.parametrize(
    "token",
    ["", "x", "%%%", "e30", "bnVsbA", "W10", "A" * 5000, "ü", forge(), forge(1, 2, 3, 4), forge(*["x"] * 4)],
)
def test_malformed_tokens_are_refused(token: str) -> None:
    refused(token)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, int),
        (2**63, int),
        (True, int),
        (1.5, int),
        ("1", int),
        ("a\x00b", str),
        (1, str),
        ("not a uuid", UUID),
        ("2026-01-01T00:00:00", datetime),
        ("9999-99-99", datetime),
        ("9999-12-31T23:59:59-01:00", datetime),
        ("0001-01-01T00:00:00+01:00", datetime),
        ([1], str),
        ({"a": 1}, str),
    ],
)
def test_values_that_postgres_would_choke_on_are_refused(value: object, kind: type) -> None:
    refused(forge(value), (kind,))


@pytest.mark.parametrize("number", ["1e400", "Infinity", "NaN"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    whole = base64.urlsafe_b64decode(forge(0) + "==").decode()
    refused(base64.urlsafe_b64encode(whole.replace(",0]", f",{number}]").encode()).decode().rstrip("="), (float,))


@given(st.text(max_size=200))
def test_no_text_breaks_the_decoder(token: str) -> None:
    refused(token)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), st.lists, max_leaves=6))
def test_no_json_breaks_the_decoder(value: object) -> None:
    body = base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")
    refused(body)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=50),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_cursor_comes_back(time: datetime, identifier: UUID, number: int, text: str, real: float) -> None:
    cursor = (time, identifier, number, text, real)
    assert pages.decode(pages.encode(cursor, FILTERS), FILTERS, (*KINDS, float)) == cursor
