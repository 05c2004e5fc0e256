"""SearchAgents, and lists by metadata."""

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_registry.stage import Caller, struct

ACTIVE = agent_pb2.AGENT_STATUS_ACTIVE


async def search(caller: Caller, query: str = "", *, page_size: int = 0, **filters: object) -> list[tuple[str, float]]:
    """Walks all pages of a search; gives names and scores."""
    found: list[tuple[str, float]] = []
    token = ""
    while True:
        page = await caller.agents.SearchAgents(
            pb.SearchAgentsRequest(query=query, page_size=page_size, page_token=token, **filters)  # type: ignore[arg-type]
        )
        assert page_size == 0 or len(page.hits) <= page_size
        found.extend((hit.agent.name, hit.score) for hit in page.hits)
        token = page.next_page_token
        if not token:
            return found


async def names(caller: Caller, query: str = "", **filters: Any) -> list[str]:
    """The names that a search gives."""
    return [name for name, _ in await search(caller, query, **filters)]


async def populate(tenant: Caller) -> None:
    """Makes agents that differ in what searches look at."""
    for name, fields in (
        ("refunds", {"display_name": "Refund Desk", "description": "Pays money back."}),
        ("shipper", {"capabilities": ["shipping", "refunding money"], "description": "Follows parcels."}),
        ("clerk", {"capabilities": ["shipping"], "description": "Knows refunds and parcels by heart."}),
        ("poet", {"description": "Writes verse."}),
    ):
        made = await tenant.create(name=name, **fields)
        if name in ("clerk", "poet"):
            await tenant.activate(made.agent_id)


async def test_words_are_found_by_their_stem_those_in_names_first(tenant: Caller, stranger: Caller) -> None:
    await populate(tenant)
    await stranger.create(name="refunds")
    found = await search(tenant, "refund")
    assert [name for name, _ in found] == ["refunds", "shipper", "clerk"]
    assert [score for _, score in found] == [1.0, 0.6, 0.3]
    assert await names(tenant, "REFUNDING") == ["refunds", "shipper", "clerk"]
    assert await names(tenant, "desk") == ["refunds"]
    assert await names(tenant, "nothing of that") == []


async def test_an_agent_with_more_of_the_words_is_better(tenant: Caller) -> None:
    await populate(tenant)
    found = dict(await search(tenant, "refunds parcels heart"))
    assert list(found) == ["clerk", "shipper", "refunds"]
    assert all(0 < score <= 1 for score in found.values())
    # Three in the description are better than two in better places, and those than one in a name.
    assert found["clerk"] > 2 / 3 >= found["shipper"] > 1 / 3 >= found["refunds"]


async def test_capabilities_alone_give_the_newest_first(tenant: Caller) -> None:
    await populate(tenant)
    assert await search(tenant, capabilities=["shipping"]) == [("clerk", 1.0), ("shipper", 1.0)]
    assert await names(tenant, capabilities=["shipping", "refunding money"]) == ["shipper"]
    assert await names(tenant, capabilities=["refunding money", "shipping", "shipping"]) == ["shipper"]
    assert await names(tenant, capabilities=["ship"]) == []
    assert await names(tenant, capabilities=["shipping"], status=ACTIVE) == ["clerk"]


async def test_everything_given_must_fit(tenant: Caller) -> None:
    await populate(tenant)
    assert await names(tenant, "refund", capabilities=["shipping"]) == ["shipper", "clerk"]
    assert await names(tenant, "refund", capabilities=["shipping"], status=ACTIVE) == ["clerk"]
    assert await names(tenant, "refund", status=ACTIVE) == ["clerk"]
    assert await names(tenant, "verse", capabilities=["shipping"]) == []


@pytest.mark.parametrize("query", ["", "refund parcel money"])
async def test_pages_give_each_agent_once(tenant: Caller, query: str) -> None:
    for number in range(7):
        await tenant.create(
            name=f"a-{number}", capabilities=["x"], description="refund parcel money"[: 6 + 7 * (number % 3)]
        )
    whole = await search(tenant, query, capabilities=["x"])
    assert len(whole) == 7
    for page_size in (1, 2, 3, 7):
        assert await search(tenant, query, capabilities=["x"], page_size=page_size) == whole


async def test_searches_follow_updates(tenant: Caller) -> None:
    made = await tenant.create(name="gardener", description="Waters roses.")
    await tenant.agents.UpdateAgent(
        pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=made.agent_id, description="Prunes apple trees."),
            update_mask=FieldMask(paths=["description"]),
        )
    )
    assert await names(tenant, "rose") == []
    assert await names(tenant, "tree") == ["gardener"]


async def test_of_very_many_the_newest_are_ranked(tenant: Caller, postgres: ClonedDatabase) -> None:
    await tenant.create(name="old-best", display_name="Common")
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            """
            INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type,
                                         instructions, llm, capabilities, behavior, metadata, labels, create_time)
            SELECT $1, gen_random_uuid(), 'n-' || n, '', 'common', 'tool_use', '', '{}', '{}', '{}', '{}', '{}',
                   now() + n * interval '1 second'
              FROM generate_series(1, 1000) n
            """,
            tenant.tenant_id,
        )
    found = await names(tenant, "common", page_size=100)
    assert len(found) == len(set(found)) == 1_000
    assert found[0] == "n-1000"
    assert "old-best" not in found


HOSTILE = [
    "!@#$%^&*()|:<->" * 33,
    "a' | 'b & !c:* <-> \\",
    "'; DROP TABLE registry.agents; --",
    "refund:* & !poet",
    "the of and",
    " \t\n ,",
    "日" * 500,
    "x" * 500,
    " ".join(chr(97 + number % 26) + str(number) for number in range(100)),
    "%_\\%",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_query_finds_words_and_does_nothing_else(tenant: Caller, query: str) -> None:
    await tenant.create(name="refund")
    await tenant.create(name="poet")
    expected = ["poet", "refund"] if "refund:" in query else []
    assert sorted(await names(tenant, query)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"query", "capabilities"}),
        ({"query": "  "}, {"query", "capabilities"}),
        ({"query": "x" * 501}, {"query"}),
        ({"query": "a\0b"}, {"query"}),
        ({"capabilities": [str(number) for number in range(9)]}, {"capabilities"}),
        ({"capabilities": [""]}, {"capabilities[0]"}),
        ({"capabilities": ["x" * 65]}, {"capabilities[0]"}),
        ({"query": "x", "status": 99}, {"status"}),
        ({"query": "x", "page_size": -1}, {"page_size"}),
    ],
)
async def test_a_search_beyond_its_limits_is_refused(
    tenant: Caller, fields: dict[str, object], expected: set[str]
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.SearchAgents(pb.SearchAgentsRequest(**fields))  # type: ignore[arg-type]
    expected = {"capabilities"} if fields.get("capabilities") and len(expected) > 1 else expected
    assert set(refusal.violations) == expected


async def test_a_token_of_another_search_is_refused(tenant: Caller) -> None:
    await populate(tenant)
    token = (await tenant.agents.SearchAgents(pb.SearchAgentsRequest(query="refund", page_size=1))).next_page_token
    for request in (
        pb.SearchAgentsRequest(query="parcel", page_token=token),
        pb.SearchAgentsRequest(query="refund", status=ACTIVE, page_token=token),
        pb.SearchAgentsRequest(capabilities=["shipping"], page_token=token),
        pb.SearchAgentsRequest(query="refund", page_token="AAAA"),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.agents.SearchAgents(request)


async def test_a_page_of_hits_fits_into_a_message(tenant: Caller) -> None:
    for name in "abcdefghij":
        await tenant.create(name=name, instructions="🙂" * 100_000, description="large")
    page = await tenant.agents.SearchAgents(pb.SearchAgentsRequest(query="large"))
    assert 1 < len(page.hits) < 10
    assert page.ByteSize() < 3 * 1024 * 1024
    assert "".join(await names(tenant, "large")) == "jihgfedcba"


async def listed(caller: Caller, metadata: dict[str, Any], **filters: object) -> str:
    """The names that a list by metadata gives, page by page."""
    found, token = "", ""
    while True:
        page = await caller.agents.ListAgents(
            pb.ListAgentsRequest(metadata=struct(metadata), page_size=1, page_token=token, **filters)  # type: ignore[arg-type]
        )
        found += "".join(agent.name for agent in page.agents)
        token = page.next_page_token
        if not token:
            return found


METADATA: list[tuple[dict[str, Any], str]] = [
    ({"team": "blue"}, "cba"),
    ({"team": "red"}, "d"),
    ({"team": "blue", "size": 3}, "ba"),
    ({"size": 3.0}, "ba"),
    ({"size": "3"}, "d"),
    ({"owner": {"name": "ada"}}, "ca"),
    ({"name": "ada"}, ""),
    ({"tags": "x"}, "ba"),
    ({"tags": ["x", "y"]}, "a"),
    ({"tags": ["y", "x"], "team": "blue"}, "a"),
    ({"on": True}, "b"),
    ({"on": False}, "c"),
    ({"on": None}, "d"),
    ({"half": 0.5}, "b"),
    ({"nest": {"deep": 1}}, "d"),
    ({"owner.name": "ada"}, "e"),
]


async def test_lists_are_filtered_by_metadata(tenant: Caller, stranger: Caller) -> None:
    for name, metadata in (
        ("a", {"team": "blue", "size": 3, "owner": {"name": "ada"}, "tags": ["x", "y"]}),
        ("b", {"team": "blue", "size": 3, "tags": ["x"], "on": True, "half": 0.5}),
        ("c", {"team": "blue", "owner": {"name": "ada"}, "on": False}),
        ("d", {"team": "red", "size": "3", "on": None, "nest": [{"deep": 1}, [{"deep": 2}]]}),
        ("e", {"owner.name": "ada", "empty": {}}),
    ):
        made = await tenant.create(
            name=name, metadata=struct(metadata), labels={"k": name}, capabilities=["s"] if name in "ab" else []
        )
        if name in "bd":
            await tenant.activate(made.agent_id)
        await stranger.create(name=name, metadata=struct(metadata))
    for wanted, expected in METADATA:
        assert await listed(tenant, wanted) == expected, wanted
    assert await listed(tenant, {"team": "blue"}, status=ACTIVE) == "b"
    assert await listed(tenant, {"team": "blue"}, capability="s") == "ba"
    assert await listed(tenant, {"team": "blue"}, labels={"k": "a"}) == "a"
    assert await listed(tenant, {"team": "blue"}, labels={"k": "a"}, status=ACTIVE) == ""
    assert await listed(tenant, {"team": "blue"}, behavior_type="conversational") == ""


@pytest.mark.parametrize(
    "metadata", [{"a": {}}, {"a": []}, {str(number): 1 for number in range(9)}, {"a": list(range(9))}]
)
async def test_a_filter_holds_one_to_eight_values(tenant: Caller, metadata: dict[str, Any]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.ListAgents(pb.ListAgentsRequest(metadata=struct(metadata)))
    assert set(refusal.violations) == {"metadata"}


async def test_a_metadata_token_is_bound_to_its_filter(tenant: Caller) -> None:
    for _ in range(2):
        await tenant.create(metadata=struct({"a": 1, "b": 1}))
    page = await tenant.agents.ListAgents(pb.ListAgentsRequest(metadata=struct({"a": 1}), page_size=1))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await tenant.agents.ListAgents(pb.ListAgentsRequest(metadata=struct({"b": 1}), page_token=page.next_page_token))


async def test_metadata_holds_a_thousand_values_at_most(tenant: Caller) -> None:
    made = await tenant.create(metadata=struct({"n": list(range(1_000))}))
    assert len((await tenant.get(made.agent_id)).metadata.fields["n"].list_value.values) == 1_000
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.create(metadata=struct({"n": list(range(1_001))}))
    assert set(refusal.violations) == {"agent.metadata"}
