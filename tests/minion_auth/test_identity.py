import asyncio
from uuid import uuid4

import pytest
from minion_auth import CallerKind, Identity, acting_as, caller, tenant
from minion_errors import InvalidArgument, Unauthenticated


def test_there_is_no_caller_outside_of_a_call() -> None:
    with pytest.raises(Unauthenticated):
        caller()


def test_acting_as_lasts_for_its_block() -> None:
    outer = Identity(CallerKind.TENANT, uuid4(), "key:1")
    inner = Identity(CallerKind.SERVICE, uuid4(), "service:memory", "key:1", "memory")
    with acting_as(outer):
        with acting_as(inner):
            assert caller() == inner
            assert tenant() == inner.tenant_id
        assert caller() == outer
    with pytest.raises(Unauthenticated):
        caller()


def test_a_caller_with_no_tenant_is_told_to_name_one() -> None:
    with acting_as(Identity(CallerKind.OPERATOR, None, "operator")), pytest.raises(InvalidArgument) as refusal:
        tenant()
    assert refusal.value.reason == "TENANT_MISSING"


def test_the_origin_is_whom_a_service_acts_for() -> None:
    assert Identity(CallerKind.SERVICE, None, "service:memory", "key:1", "memory").origin == "key:1"
    assert Identity(CallerKind.TENANT, uuid4(), "key:1").origin == "key:1"


async def test_tasks_at_once_have_callers_of_their_own() -> None:
    async def serve(name: str) -> str:
        with acting_as(Identity(CallerKind.TENANT, uuid4(), name)):
            await asyncio.sleep(0)
            return caller().principal

    assert await asyncio.gather(*(serve(f"key:{number}") for number in range(20))) == [
        f"key:{number}" for number in range(20)
    ]
