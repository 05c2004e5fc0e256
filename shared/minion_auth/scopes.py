"""What a tenant's credential may do: `agents.read` (a permission), `agents.*` (a noun's all), `*` (everything).

A scope means nothing by itself: what there is to be allowed is the table of permissions, and it alone.
"""

from collections.abc import Iterable, Mapping

from minion_auth.identity import EVERYTHING, CallerKind
from minion_auth.permissions import RULES, Rule

_ALL = "*"


def permissions(rules: Mapping[str, Rule] = RULES) -> frozenset[str]:
    """Gives the permissions that a tenant can have at all: those of the methods that tenants may call."""
    return frozenset(rule.permission for rule in rules.values() if CallerKind.TENANT in rule.callers)


def vocabulary(rules: Mapping[str, Rule] = RULES) -> frozenset[str]:
    """Gives every scope that means something."""
    named = permissions(rules)
    return named | {_noun(permission) for permission in named} | EVERYTHING


def cover(scopes: frozenset[str], permission: str) -> bool:
    """Tells whether scopes allow a permission; also whether they are as wide as another scope."""
    # Everything is the all of no noun: a scope `*.*`, which means nothing, must not cover it.
    return _ALL in scopes or permission in scopes or (permission != _ALL and _noun(permission) in scopes)


def beyond(wanted: Iterable[str], own: frozenset[str]) -> str | None:
    """Gives the first scope that is wider than one's own, or None.

    A noun's all is wider than each of its permissions by name: what comes to the noun later is among it.
    """
    return next((scope for scope in wanted if not cover(own, scope)), None)


def _noun(permission: str) -> str:
    return f"{permission.partition('.')[0]}.*"
