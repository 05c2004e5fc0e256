"""Faults are told together, as long as somebody would read them."""

import pytest
from minion_errors import InvalidArgument, Violations


def test_all_faults_are_raised_together() -> None:
    violations = Violations()
    violations.identifier("agent_id", "no id")
    violations.length("name", "", minimum=1, maximum=3)
    violations.count("parts", [], minimum=1, maximum=64)
    with pytest.raises(InvalidArgument) as caught:
        violations.raise_if_any()
    assert [fault.field for fault in caught.value.violations] == ["agent_id", "name", "parts"]


def test_a_request_full_of_faults_is_refused_before_all_are_counted() -> None:
    violations = Violations()
    looked_at = (violations.length(f"keys[{index}]", "", minimum=1, maximum=200) for index in range(1_000_000))
    with pytest.raises(InvalidArgument) as caught:
        list(looked_at)
    assert [fault.field for fault in caught.value.violations] == [f"keys[{index}]" for index in range(100)]
    assert "(and 95 more)" in caught.value.message


def test_too_many_items_are_refused_before_they_are_looked_at() -> None:
    violations = Violations()
    violations.add("session_id", "is required")
    with pytest.raises(InvalidArgument) as caught:
        violations.count("keys", range(101), maximum=100)
    assert [fault.field for fault in caught.value.violations] == ["session_id", "keys"]
