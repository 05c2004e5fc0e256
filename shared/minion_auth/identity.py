"""Who calls: the identity of the call in hand, in a context variable."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from minion_errors import InvalidArgument, Unauthenticated

# The scope that covers whatever a tenant may do.
EVERYTHING = frozenset({"*"})


class CallerKind(enum.Enum):
    """What kind of credential the caller showed."""

    TENANT = "tenant"
    SERVICE = "service"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential was checked.

    `principal` is who answers for the call: `key:<id>`, `user:<subject of a JWT>`, `service:<name>` or `operator`.
    `tenant_id` is the tenant that the call concerns: the credential's own, the one that a service acts for, or the one
    that an operator named; None where there is none. `on_behalf_of` is the principal that a service acts for, where
    there is one. `scopes` bound what a tenant's caller may do; services and operators are bound by the table alone.
    """

    kind: CallerKind
    tenant_id: UUID | None
    principal: str
    on_behalf_of: str | None = None
    service: str | None = None
    scopes: frozenset[str] = EVERYTHING

    @property
    def origin(self) -> str:
        """The principal that began it all: whom a service acts for, or the caller itself."""
        return self.on_behalf_of or self.principal


_caller: ContextVar[Identity | None] = ContextVar("minion_caller", default=None)


def caller() -> Identity:
    """Gives the identity of the call in hand.

    Raises:
        Unauthenticated: there is no call, or it is an exempt one.
    """
    identity = _caller.get()
    if identity is None:
        raise Unauthenticated("There is no caller here.", reason="CREDENTIAL_MISSING")
    return identity


def current() -> Identity | None:
    """Gives the identity of the call in hand, or None outside of one."""
    return _caller.get()


def tenant() -> UUID:
    """Gives the tenant that the call in hand concerns.

    Raises:
        Unauthenticated: there is no call.
        InvalidArgument: the caller has no tenant and named none (`TENANT_MISSING`).
    """
    tenant_id = caller().tenant_id
    if tenant_id is None:
        raise InvalidArgument(
            "This method concerns a tenant: name it in `minion-tenant` metadata.", reason="TENANT_MISSING"
        )
    return tenant_id


@contextmanager
def acting_as(identity: Identity) -> Iterator[Identity]:
    """Makes `identity` the caller inside the block: for workers, which serve no call, and for tests."""
    token = _caller.set(identity)
    try:
        yield identity
    finally:
        _caller.reset(token)


def enter(identity: Identity) -> None:
    """Makes `identity` the caller for the rest of the current task: for the server, whose tasks are calls."""
    _caller.set(identity)
