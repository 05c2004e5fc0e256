import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import InvalidArgument, Violations
from minion_grpc import request_digest, wire

from tests.minion_grpc.echo import EchoRequest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=5), inner, max_size=4),
    max_leaves=12,
)


def faults(violations: Violations) -> list[tuple[str, str]]:
    try:
        violations.raise_if_any()
    except InvalidArgument as error:
        return [(violation.field, violation.description) for violation in error.violations]
    return []


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_comes_back_as_it_went(moment: datetime) -> None:
    violations = Violations()
    assert wire.from_timestamp(wire.to_timestamp(moment), "t", violations) == moment
    assert faults(violations) == []


def test_a_moment_of_another_zone_is_the_same_moment() -> None:
    moment = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert wire.from_timestamp(wire.to_timestamp(moment), "t", Violations()) == moment
    assert wire.to_timestamp(moment).ToJsonString() == "2026-11-22T06:30:00.000005Z"
    assert wire.to_optional_timestamp(None) is None


@pytest.mark.parametrize("seconds", [-(10**12), 10**12, 2**63 - 1])
def test_a_moment_outside_of_time_is_a_fault(seconds: int) -> None:
    violations = Violations()
    wire.from_timestamp(Timestamp(seconds=seconds), "until", violations)
    assert [field for field, _ in faults(violations)] == ["until"]


@given(st.timedeltas(min_value=timedelta(days=-10_000), max_value=timedelta(days=10_000)))
def test_a_span_comes_back_as_it_went(span: timedelta) -> None:
    assert wire.from_duration(wire.to_duration(span), "d", Violations()) == span


@pytest.mark.parametrize(("nanos", "microseconds"), [(999_999_999, 999_999), (1_500, 1), (999, 0), (-1_999, -1)])
def test_the_nanoseconds_of_a_span_are_cut(nanos: int, microseconds: int) -> None:
    assert wire.from_duration(Duration(nanos=nanos), "d", Violations()) == timedelta(microseconds=microseconds)


def test_a_span_without_end_is_a_fault() -> None:
    violations = Violations()
    wire.from_duration(Duration(seconds=2**62), "ttl", violations)
    assert [field for field, _ in faults(violations)] == ["ttl"]


@given(st.dictionaries(st.text("abc", max_size=5), JSON, max_size=5))
def test_a_json_object_comes_back_as_it_went(value: dict[str, Any]) -> None:
    violations = Violations()
    back = wire.from_struct(wire.to_struct(value), "metadata", violations)
    assert back == value
    assert faults(violations) == []


def test_whole_numbers_come_back_as_ints_and_others_as_floats() -> None:
    back = wire.from_struct(wire.to_struct({"whole": 3.0, "part": 0.5, "large": 1e300}), "m", Violations())
    assert [type(back[name]) for name in ("whole", "part", "large")] == [int, float, float]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_faults(number: float) -> None:
    struct, violations = Struct(), Violations()
    struct.fields["a"].list_value.values.add().number_value = number
    wire.from_struct(struct, "metadata", violations)
    assert faults(violations) == [("metadata.a[0]", "must be a finite number")]


def test_a_struct_nested_too_deep_is_a_fault() -> None:
    value: dict[str, Any] = {}
    for _ in range(40):
        value = {"a": value}
    violations = Violations()
    wire.from_struct(wire.to_struct(value), "metadata", violations)
    assert len(faults(violations)) == 1


def test_the_paths_of_a_hostile_struct_cost_no_memory() -> None:
    struct, violations = Struct(), Violations()
    values = struct.fields["n" * 500_000].list_value.values
    for _ in range(20_000):
        values.add().number_value = 1
    values[-1].number_value = float("nan")
    started = time.thread_time()
    wire.from_struct(struct, "metadata", violations)
    assert time.thread_time() - started < 1
    assert [len(field) < 500 for field, _ in faults(violations)] == [True]


def test_a_json_object_far_beyond_its_limit_is_not_read() -> None:
    struct, violations = Struct(), Violations()
    struct.fields["a"].list_value.values.add().number_value = float("nan")
    for _ in range(1_000):
        struct.fields["a"].list_value.values.add().number_value = 1
    wire.from_bounded_struct(struct, "metadata", violations, maximum=4_000)
    assert faults(violations) == [("metadata.a[0]", "must be a finite number")]
    with pytest.raises(InvalidArgument) as caught:
        wire.from_bounded_struct(struct, "metadata", Violations(), maximum=1_000)
    assert [fault.description for fault in caught.value.violations] == ["must have at most 1000 bytes as JSON"]


async def test_what_is_large_is_converted_in_a_thread() -> None:
    assert await wire.off_loop(lambda _: threading.get_ident(), None, 32 * 1024) == threading.get_ident()
    assert await wire.off_loop(lambda _: threading.get_ident(), None, 32 * 1024 + 1) != threading.get_ident()


def test_json_values_are_measured_as_json() -> None:
    assert wire.json_bytes([{"a": 1}, [], None]) == len('{"a":1}[]null')


def test_a_value_that_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes is no JSON value"):
        wire.to_struct({"a": b"x"})


def test_a_mask_names_known_fields_and_an_empty_one_names_all() -> None:
    violations = Violations()
    allowed = {"name", "labels"}
    assert wire.mask_paths(FieldMask(paths=["name"]), allowed, "update_mask", violations) == {"name"}
    assert wire.mask_paths(FieldMask(), allowed, "update_mask", violations) == allowed
    assert faults(violations) == []
    wire.mask_paths(FieldMask(paths=["name", "agent_id"]), allowed, "update_mask", violations)
    assert [field for field, _ in faults(violations)] == ["update_mask"]


def test_the_digest_is_of_everything_but_the_request_id() -> None:
    digest = request_digest(EchoRequest(text="a", request_id="1"))
    assert digest == request_digest(EchoRequest(text="a", request_id="2"))
    assert digest != request_digest(EchoRequest(text="b", request_id="1"))
    assert len(digest) == 32


def test_the_digest_tells_types_apart_and_leaves_the_request_as_it_is() -> None:
    request = EchoRequest(text="a", request_id="1")
    request_digest(request)
    assert request.request_id == "1"
    activate, deactivate = pb.ActivateAgentRequest(agent_id="a"), pb.DeactivateAgentRequest(agent_id="a")
    assert activate.SerializeToString() == deactivate.SerializeToString()
    assert request_digest(activate) != request_digest(deactivate)
