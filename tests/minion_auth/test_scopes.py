"""What scopes cover, and what there is to be covered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_auth import RULES, CallerKind, scopes

_VOCABULARY = sorted(scopes.vocabulary())


@pytest.mark.parametrize(
    ("has", "wanted", "covered"),
    [
        ({"*"}, "agents.read", True),
        ({"*"}, "agents.*", True),
        ({"*"}, "*", True),
        ({"agents.*"}, "agents.read", True),
        ({"agents.*"}, "agents.*", True),
        ({"agents.*"}, "*", False),
        ({"agents.*"}, "agents_of_others.read", False),
        ({"agents.read"}, "agents.read", True),
        ({"agents.read"}, "agents.write", False),
        ({"agents.read", "agents.write"}, "agents.*", False),
        ({"agents"}, "agents.read", False),
        ({"*.*"}, "*", False),
        ({"*.*"}, "agents.read", False),
        ({"*.read"}, "agents.read", False),
        ({""}, "agents.read", False),
        (set(), "agents.read", False),
    ],
)
def test_a_scope_covers_itself_and_what_is_of_its_noun(has: set[str], wanted: str, covered: bool) -> None:
    assert scopes.cover(frozenset(has), wanted) is covered


def test_every_method_of_a_tenant_has_a_scope_and_nothing_else_has() -> None:
    for rule in RULES.values():
        named = any(scope != "*" and scopes.cover(frozenset({scope}), rule.permission) for scope in _VOCABULARY)
        assert named or CallerKind.TENANT not in rule.callers, rule
    of_others = {rule.permission for rule in RULES.values() if CallerKind.TENANT not in rule.callers}
    assert {"tenants.admin", "keys.verify"} <= of_others
    assert not scopes.permissions() & {"tenants.admin", "keys.verify", "embedding_models.admin"}


@given(own=st.frozensets(st.sampled_from(_VOCABULARY)), wanted=st.frozensets(st.sampled_from(_VOCABULARY)))
def test_what_is_not_beyond_allows_nothing_more(own: frozenset[str], wanted: frozenset[str]) -> None:
    if scopes.beyond(sorted(wanted), own) is None:
        for permission in scopes.permissions():
            assert not scopes.cover(wanted, permission) or scopes.cover(own, permission)
