"""ListAgents."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_testing.errors import refused

from tests.minion_registry.stage import Caller


async def names(caller: Caller, *, page_size: int = 0, **filters: object) -> list[str]:
    """Walks all pages of a list."""
    found: list[str] = []
    token = ""
    while True:
        page = await caller.agents.ListAgents(
            pb.ListAgentsRequest(page_size=page_size, page_token=token, **filters)  # type: ignore[arg-type]
        )
        assert page_size == 0 or len(page.agents) <= page_size
        found.extend(agent.name for agent in page.agents)
        token = page.next_page_token
        if not token:
            return found


async def populate(tenant: Caller) -> None:
    """Makes six agents that differ in what lists filter by."""
    for name, behavior_type, capabilities, labels in (
        ("a", "tool_use", ["refunds"], {"tier": "gold"}),
        ("b", "conversational", ["refunds", "shipping"], {"tier": "gold", "region": "eu"}),
        ("c", "tool_use", [], {"tier": "silver", "region": "eu"}),
        ("d", "conversational", ["refunds"], {}),
        ("e", "tool_use", ["shipping"], {"tier": "gold", "region": "us"}),
        ("f", "tool_use", ["refunds"], {"tier": "gold", "region": "eu"}),
    ):
        made = await tenant.create(name=name, behavior_type=behavior_type, capabilities=capabilities, labels=labels)
        if name in "bef":
            await tenant.activate(made.agent_id)


async def test_agents_are_listed_newest_first_page_by_page(tenant: Caller, stranger: Caller) -> None:
    await stranger.create()
    await populate(tenant)
    for page_size in (0, 1, 2, 6, 7, 1_000_000):
        assert await names(tenant, page_size=page_size) == ["f", "e", "d", "c", "b", "a"]


ACTIVE = agent_pb2.AGENT_STATUS_ACTIVE
FILTERS = [
    ({"status": ACTIVE}, "feb"),
    ({"behavior_type": "conversational"}, "db"),
    ({"behavior_type": "unheard_of"}, ""),
    ({"status": ACTIVE, "behavior_type": "tool_use"}, "fe"),
    ({"capability": "refunds"}, "fdba"),
    ({"capability": "ref"}, ""),
    ({"capability": "refunds", "status": ACTIVE}, "fb"),
    ({"capability": "refunds", "behavior_type": "tool_use"}, "fa"),
    ({"labels": {"tier": "gold"}}, "feba"),
    ({"labels": {"tier": "gold", "region": "eu"}}, "fb"),
    ({"labels": {"tier": "gold", "region": "eu"}, "behavior_type": "tool_use"}, "f"),
    ({"labels": {"tier": "gold"}, "capability": "refunds"}, "fba"),
    ({"labels": {"tier": "gold"}, "capability": "refunds", "status": ACTIVE}, "fb"),
    ({"labels": {"tier": "bronze"}}, ""),
]


async def test_every_filter_given_must_match(tenant: Caller) -> None:
    await populate(tenant)
    for filters, expected in FILTERS:
        for page_size in (0, 1):
            found = "".join(await names(tenant, page_size=page_size, **filters))  # type: ignore[arg-type]
            assert found == expected, filters


async def test_a_page_fits_into_a_message_whatever_it_holds(tenant: Caller) -> None:
    for name in "abcdefghij":
        await tenant.create(name=name, instructions="🙂" * 100_000, labels={"k": "v"})
    page = await tenant.agents.ListAgents(pb.ListAgentsRequest())
    assert 1 < len(page.agents) < 10
    assert page.ByteSize() < 3 * 1024 * 1024
    assert "".join(await names(tenant)) == "jihgfedcba"
    assert "".join(await names(tenant, labels={"k": "v"})) == "jihgfedcba"


async def test_lists_follow_updates(tenant: Caller) -> None:
    made = await tenant.create(name="a", capabilities=["old", "kept"], labels={"old": "1", "kept": "1", "moved": "1"})
    await tenant.agents.UpdateAgent(
        pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(
                agent_id=made.agent_id,
                capabilities=["kept", "new"],
                labels={"kept": "1", "moved": "2", "new": "1"},
            ),
            update_mask=FieldMask(paths=["capabilities", "labels"]),
        )
    )
    for capability, expected in (("old", []), ("kept", ["a"]), ("new", ["a"])):
        assert await names(tenant, capability=capability) == expected
    for label, value, expected in (
        ("old", "1", []),
        ("kept", "1", ["a"]),
        ("moved", "1", []),
        ("moved", "2", ["a"]),
        ("new", "1", ["a"]),
    ):
        assert await names(tenant, labels={label: value}) == expected


async def test_a_token_of_other_filters_is_refused(tenant: Caller) -> None:
    await populate(tenant)
    token = (await tenant.agents.ListAgents(pb.ListAgentsRequest(page_size=1))).next_page_token
    for request in (
        pb.ListAgentsRequest(page_token=token, status=ACTIVE),
        pb.ListAgentsRequest(page_token=token, labels={"tier": "gold"}),
        pb.ListAgentsRequest(page_token="AAAA"),
        pb.ListAgentsRequest(page_token="é"),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.agents.ListAgents(request)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"status": 99}, "status"),
        ({"labels": {str(index): "" for index in range(9)}}, "labels"),
        ({"capability": "x" * 65}, "capability"),
        ({"behavior_type": "\0"}, "behavior_type"),
    ],
)
async def test_a_filter_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.ListAgents(pb.ListAgentsRequest(**fields))  # type: ignore[arg-type]
    assert list(refusal.violations) == [field]
