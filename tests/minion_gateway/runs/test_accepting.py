"""Asking for a run: what is refused, what is joined, what waits."""

import asyncio
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.registry.v1 import agent_pb2, agent_service_pb2
from minion.session.v1 import session_service_pb2
from minion_gateway.runs.changes import Change, EndedRun, Ending, Fence
from minion_gateway.runs.driver import Driver
from minion_gateway.runs.store import RunStore
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.stage import Client, Stage, struct, until


async def test_a_repeat_joins_the_first_run(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    request_id = str(uuid4())
    first = await client.create(session_id, request_id=request_id)
    again = await client.create(session_id, request_id=request_id)
    assert again == first
    assert len(provider.ledger.asked) == 1


async def test_repeats_at_once_are_one_run(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    request_id = str(uuid4())
    runs = await asyncio.gather(*(client.create(session_id, request_id=request_id) for _ in range(5)))
    assert len({run.run_id for run in runs}) == 1
    assert len(provider.ledger.asked) == 1


async def test_a_repeated_stream_tells_the_same_events(client: Client) -> None:
    session_id = await client.conversation()
    request_id = str(uuid4())
    assert await client.stream(session_id, request_id=request_id) == await client.stream(
        session_id, request_id=request_id
    )


async def test_another_request_under_the_same_id_is_refused(client: Client) -> None:
    session_id = await client.conversation()
    request_id = str(uuid4())
    await client.create(session_id, "one", request_id=request_id)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await client.create(session_id, "two", request_id=request_id)


async def test_a_repeat_is_joined_though_the_agent_takes_no_more_turns(client: Client) -> None:
    agent_id = await client.agent()
    session_id = await client.session(agent_id)
    request_id = str(uuid4())
    first = await client.create(session_id, request_id=request_id)
    await client.agents.DeactivateAgent(agent_service_pb2.DeactivateAgentRequest(agent_id=agent_id))

    async def inactive() -> bool:
        try:
            await client.create(session_id)
        except grpc.aio.AioRpcError:
            return True
        return False

    await until(inactive)
    assert await client.create(session_id, request_id=request_id) == first


async def test_an_agent_that_is_not_active_takes_no_turns(client: Client) -> None:
    session_id = await client.conversation(active=False)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_NOT_ACTIVE") as refusal:
        await client.create(session_id)
    assert refusal.metadata["status"] == "DRAFT"


async def test_a_session_with_an_agent_that_never_was_takes_no_turns(client: Client) -> None:
    session_id = await client.session(str(uuid4()))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_NOT_ACTIVE"):
        await client.create(session_id)


@pytest.mark.parametrize("method", ["create", "stream"])
async def test_an_unknown_session_is_not_found(client: Client, method: str) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await getattr(client, method)(str(uuid4()))


async def test_a_session_that_has_the_id_of_one_that_is_gone_is_nobody_elses(client: Client, stage: Stage) -> None:
    first, second = await client.agent(), await client.agent()
    session_id = str(uuid4())
    made = session_service_pb2.CreateSessionRequest(session_id=session_id, agent_id=first, user_id="ann")
    await client.sessions.CreateSession(made)
    assert (await client.create(session_id)).agent_id == first
    await client.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))
    made = session_service_pb2.CreateSessionRequest(session_id=session_id, agent_id=second, user_id="bob")
    await client.sessions.CreateSession(made)
    asked = len(stage.provider.ledger.asked)
    # The gateway thinks of the one before: no model is asked in the name of its agent and user.
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await client.create(session_id)
    assert len(stage.provider.ledger.asked) == asked
    run = await client.create(session_id)
    assert (run.agent_id, run.user_id, run.state) == (second, "bob", run_pb2.RUN_STATE_COMPLETED)


async def test_another_tenants_session_reads_as_not_found(client: Client, stage: Stage) -> None:
    session_id = await client.conversation()
    await client.create(session_id)
    async with Client(stage) as stranger, refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await stranger.create(session_id)


@pytest.mark.parametrize("method", ["create", "stream"])
async def test_a_session_that_was_closed_takes_no_turns(client: Client, method: str) -> None:
    session_id = await client.conversation()
    await client.create(session_id)
    await client.sessions.CloseSession(session_service_pb2.CloseSessionRequest(session_id=session_id))
    # The first time the session itself says so, from then on the gateway knows.
    for _ in range(2):
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_NOT_ACTIVE"):
            await getattr(client, method)(session_id)


@pytest.mark.parametrize("tools", [(), ("calculator",)])
async def test_a_run_whose_session_is_deleted_meanwhile_fails_and_says_so(
    client: Client, provider: FakeProvider, tools: tuple[str, ...]
) -> None:
    session_id = await client.conversation(tools=tools)
    provider.push(Fault(FaultKind.STALL))
    run = asyncio.create_task(client.create(session_id))
    await provider.ledger.until(1)
    await client.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))
    provider.release()
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND") as refusal:
        await run
    ended = (await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=refusal.metadata["run_id"]))).run
    assert (ended.state, ended.error.reason) == (run_pb2.RUN_STATE_FAILED, "SESSION_NOT_FOUND")
    # The gateway has forgotten the session too.
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND") as refusal:
        await client.create(session_id)
    assert "run_id" not in refusal.metadata


async def test_a_run_whose_sessions_id_was_given_to_another_meanwhile_leaves_nothing_there(
    client: Client, provider: FakeProvider
) -> None:
    agent_id, session_id = await client.agent(), str(uuid4())
    made = session_service_pb2.CreateSessionRequest(session_id=session_id, agent_id=agent_id, user_id="ann")
    await client.sessions.CreateSession(made)
    provider.push(Fault(FaultKind.STALL))
    run = asyncio.create_task(client.create(session_id, "a secret of ann's"))
    await provider.ledger.until(1)
    await client.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))
    made = session_service_pb2.CreateSessionRequest(session_id=session_id, agent_id=agent_id, user_id="bob")
    await client.sessions.CreateSession(made)
    provider.release()
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await run
    assert await client.messages(session_id) == []


async def test_a_second_run_is_refused_while_one_is_active(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL))
    first = asyncio.create_task(client.create(session_id, "first"))
    await provider.ledger.until(1)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_BUSY") as refusal:
        await client.create(session_id, "second")
    provider.release()
    assert refusal.metadata["run_id"] == (await first).run_id


async def test_a_queued_run_starts_when_the_one_before_it_ends(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL))
    first = asyncio.create_task(client.create(session_id, "first"))
    await provider.ledger.until(1)
    queue = run_pb2.BUSY_POLICY_ENQUEUE
    second = asyncio.create_task(client.stream(session_id, "second", busy_policy=queue))

    async def waiting() -> bool:
        listed = await client.runs.ListRuns(
            run_service_pb2.ListRunsRequest(session_id=session_id, state=run_pb2.RUN_STATE_SUBMITTED)
        )
        return bool(listed.runs)

    await until(waiting)
    third = asyncio.create_task(client.create(session_id, "third", busy_policy=queue))
    provider.release()

    await first
    states = [event.state_changed.state for event in (await second)[:2]]
    assert states == [run_pb2.RUN_STATE_SUBMITTED, run_pb2.RUN_STATE_WORKING]
    assert (await third).answer == "echo: third"
    said = [message.parts[0].text for message in await client.messages(session_id)]
    assert said == ["first", "echo: first", "second", "echo: second", "third", "echo: third"]


async def test_a_queued_runs_lease_counts_from_when_it_was_asked_for(
    client: Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, take = RunStore.end, Driver.take
    clock = asyncio.get_running_loop().time
    asked: list[float] = []
    taken: list[float] = []

    async def slow(store: RunStore, fence: Fence, change: Change, ending: Ending, **options: bool) -> EndedRun | None:
        asked.append(clock())
        ended = await end(store, fence, change, ending, **options)
        # The lease runs while the answer is on its way.
        await asyncio.sleep(0.05)
        return ended

    async def taking(driver: Driver, tenant_id: UUID, run_id: UUID, *, began_at: float) -> None:
        if tenant_id == client.tenant_id:
            taken.append(began_at)
        await take(driver, tenant_id, run_id, began_at=began_at)

    monkeypatch.setattr(RunStore, "end", slow)
    monkeypatch.setattr(Driver, "take", taking)
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL))
    first = asyncio.create_task(client.create(session_id, "first"))
    await provider.ledger.until(1)
    second = client.runs.StreamRun(
        run_service_pb2.StreamRunRequest(session_id=session_id, text="second", busy_policy=run_pb2.BUSY_POLICY_ENQUEUE)
    )
    assert (await second.read()).event.state_changed.state == run_pb2.RUN_STATE_SUBMITTED
    provider.release()
    await first
    while (await second.read()).event.WhichOneof("event") != "run_finished":
        pass
    second.cancel()
    assert len(taken) == 1
    assert taken[0] <= asked[0]


async def test_a_caller_who_goes_away_cancels_nothing(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL))
    call = client.runs.StreamRun(run_service_pb2.StreamRunRequest(session_id=session_id, text="hello"))
    first = await call.read()
    await provider.ledger.until(1)
    call.cancel()
    provider.release()

    async def ended() -> bool:
        return bool((await client.get(first.event.run_id)).state == run_pb2.RUN_STATE_COMPLETED)

    assert await until(ended)


async def test_a_deadline_that_runs_out_ends_the_call_and_not_the_run(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL))
    request = run_service_pb2.CreateRunRequest(session_id=session_id, text="hello", request_id=str(uuid4()))

    async def ran_out() -> bool:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.runs.CreateRun(request, timeout=2)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # On a busy machine it may run out before there is a run to wait for.
        return bool(provider.ledger.asked)

    await until(ran_out)
    provider.release()

    async def answered() -> bool:
        return len(await client.messages(session_id)) == 2

    assert await until(answered)


async def test_the_longest_text_is_a_message_of_the_session(client: Client) -> None:
    behavior = agent_pb2.BehaviorSettings(context=agent_pb2.ContextPolicy(token_budget=100_000))
    session_id, text = await client.session(await client.agent(behavior=behavior)), "\U0001f600" * 65_280
    assert (await client.create(session_id, text)).state == run_pb2.RUN_STATE_COMPLETED
    assert (await client.messages(session_id))[0].parts[0].text == text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"session_id": "x"}, "session_id"),
        ({"session_id": ""}, "session_id"),
        ({"text": ""}, "text"),
        ({"text": "x" * 65_537}, "text"),
        # Few characters enough, and more than a message of the session holds.
        ({"text": "\N{GRINNING FACE}" * 65_281}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"request_id": "x"}, "request_id"),
        ({"busy_policy": 77}, "busy_policy"),
        ({"metadata": struct({"k": "x" * 16_384})}, "metadata"),
        # Far beyond its limit it isn't even read: a megabyte of it would stand in everybody's way.
        ({"metadata": struct({"k": [float("nan")] * 20_000})}, "metadata"),
    ],
)
@pytest.mark.parametrize("method", ["CreateRun", "StreamRun"])
async def test_a_field_that_breaks_its_limit_is_named(
    client: Client, fields: dict[str, object], field: str, method: str
) -> None:
    kind = getattr(run_service_pb2, f"{method}Request")
    request = kind(**{"session_id": str(uuid4()), "text": "hello", **fields})
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        call = getattr(client.runs, method)(request)
        if method == "CreateRun":
            await call
        else:
            await call.read()
    assert list(refusal.violations) == [field]


async def test_the_longest_text_and_metadata_are_taken(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Reply("yes"))
    metadata = Struct()
    metadata.update({"k": "x" * 16_000, "n": 1, "half": 0.5, "list": [None, True, {"deep": "er"}]})
    run = await client.create(session_id, "x" * 20_000, metadata=metadata)
    assert run.metadata == metadata
    assert run.answer == "yes"


@pytest.mark.parametrize("text", ["x" * 65_536, "\N{GRINNING FACE}" * 65_280])
async def test_a_text_at_its_limit_is_answered(client: Client, provider: FakeProvider, text: str) -> None:
    shown = agent_pb2.BehaviorSettings(context=agent_pb2.ContextPolicy(token_budget=100_000))
    session_id = await client.conversation(behavior=shown)
    provider.push(Reply("yes"))
    run = await client.create(session_id, text)
    assert (run.state, run.answer) == (run_pb2.RUN_STATE_COMPLETED, "yes")
    assert (await client.messages(session_id))[0].parts[0].text == text


async def test_an_unknown_run_is_not_found(client: Client) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"):
        await client.get(str(uuid4()))
    async with refused(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"):
        await client.watch(str(uuid4()))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await client.get("x")


async def test_another_tenants_run_reads_as_not_found(client: Client, stage: Stage) -> None:
    run = await client.create(await client.conversation())
    async with Client(stage) as stranger:
        async with refused(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"):
            await stranger.get(run.run_id)
        async with refused(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"):
            await stranger.watch(run.run_id)
        listed = await stranger.runs.ListRuns(run_service_pb2.ListRunsRequest())
        assert not listed.runs


async def test_runs_are_listed_page_by_page(client: Client) -> None:
    session_id = await client.conversation()
    made = [(await client.create(session_id)).run_id for _ in range(5)]
    request = run_service_pb2.ListRunsRequest(session_id=session_id, page_size=2)
    found: list[str] = []
    while True:
        page = await client.runs.ListRuns(request)
        found += [run.run_id for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == made[::-1]


@pytest.mark.parametrize("by", ["session_id", "agent_id", ""])
async def test_a_page_of_runs_ends_before_it_is_too_large(client: Client, owner: Database, by: str) -> None:
    session_id = await client.conversation()
    made = [await client.create(session_id) for _ in range(7)]
    await owner.execute(
        "UPDATE gateway.runs SET answer = repeat('x', CASE WHEN run_id = $1 THEN 3500000 ELSE 1000000 END)"
        " WHERE tenant_id = $2",
        made[3].run_id,
        client.tenant_id,
    )
    request = run_service_pb2.ListRunsRequest(page_size=500, **({by: getattr(made[0], by)} if by else {}))
    pages: list[list[str]] = []
    while True:
        page = await client.runs.ListRuns(request)
        pages.append([run.run_id for run in page.runs])
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [run_id for page in pages for run_id in page] == [run.run_id for run in made[::-1]]
    # One that is larger than a page has one to itself.
    assert [len(page) for page in pages] == [3, 1, 3]


async def test_a_page_token_belongs_to_its_list(client: Client) -> None:
    session_id = await client.conversation()
    for _ in range(2):
        await client.create(session_id)
    page = await client.runs.ListRuns(run_service_pb2.ListRunsRequest(session_id=session_id, page_size=1))
    for wrong in (
        run_service_pb2.ListRunsRequest(page_token=page.next_page_token),
        run_service_pb2.ListRunsRequest(session_id=session_id, page_token="x"),
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await client.runs.ListRuns(wrong)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await client.runs.ListRuns(run_service_pb2.ListRunsRequest(page_size=-1))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await client.runs.ListRuns(run_service_pb2.ListRunsRequest(agent_id="x"))


async def test_nobody_without_a_credential_runs_anything(stage: Stage) -> None:
    async with stage.gateway.channel(None) as channel:
        method = channel.unary_unary(
            "/minion.gateway.v1.RunService/CreateRun",
            request_serializer=run_service_pb2.CreateRunRequest.SerializeToString,
            response_deserializer=run_service_pb2.CreateRunResponse.FromString,
        )
        async with refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"):
            await method(run_service_pb2.CreateRunRequest())
