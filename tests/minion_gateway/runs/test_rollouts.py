"""Rollouts as turns feel them: real services, a fake provider, two replicas of the gateway."""

import asyncio
import math
from typing import Any
from uuid import UUID

from minion.gateway.v1 import run_pb2
from minion.registry.v1 import agent_pb2, agent_service_pb2, rollout_pb2, rollout_service_pb2
from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from minion_auth import CallerKind, Identity, ServiceTokens, acting_as
from minion_gateway.agents.domain import takes_candidate
from minion_gateway.agents.metrics import AgentMetrics
from minion_gateway.agents.peer import RegistryPeer
from minion_gateway.agents.service import Agents
from minion_grpc import connect
from minion_testing.fake_provider import FakeProvider
from minion_testing.fault_proxy import FaultProxy, Mode
from minion_testing.provider_script import Fault, FaultKind
from minion_testing.serving import SERVICE_KEY
from prometheus_client import CollectorRegistry

from tests.minion_gateway.agents.test_rollout_choice import sessions
from tests.minion_gateway.runs.stage import MODEL, Client, Stage, until
from tests.minion_gateway.runs.test_agents_cache import resolved

# A provider that there is not: every turn of such a revision fails.
BROKEN = "nowhere/gpt-0"


def rollouts(client: Client) -> Any:
    return RolloutServiceStub(client.channel("registry"))


async def revised(client: Client, candidate: str = MODEL) -> str:
    """Makes an active agent whose revision 2 is live and works; revision 1 asks for another model."""
    agent_id = await client.agent(model=candidate)
    change = agent_pb2.Agent(agent_id=agent_id, llm=agent_pb2.LlmConfig(model=MODEL, max_output_tokens=200))
    request = agent_service_pb2.UpdateAgentRequest(agent=change)
    request.update_mask.paths.append("llm")
    await client.agents.UpdateAgent(request)
    return agent_id


async def start(client: Client, agent_id: str, *shares: int, min_runs: int = 100_000) -> rollout_pb2.Rollout:
    wanted = rollout_pb2.Rollout(
        agent_id=agent_id,
        candidate_revision=1,
        steps=[rollout_pb2.RolloutStep(basis_points=share) for share in shares],
        guardrails=rollout_pb2.RolloutGuardrails(min_runs=min_runs, max_error_rate=0.2),
        evidence=rollout_pb2.ROLLOUT_EVIDENCE_NONE,
    )
    answer = await rollouts(client).StartRollout(rollout_service_pb2.StartRolloutRequest(rollout=wanted))
    made: rollout_pb2.Rollout = answer.rollout
    return made


async def get(client: Client, rollout_id: str) -> rollout_pb2.Rollout:
    answer = await rollouts(client).GetRollout(rollout_service_pb2.GetRolloutRequest(rollout_id=rollout_id))
    found: rollout_pb2.Rollout = answer.rollout
    return found


async def driven_by(client: Client, session_id: str, revision: int) -> bool:
    return (await client.create(session_id)).agent_revision == revision


def expected(rollout: rollout_pb2.Rollout, session_id: str) -> int:
    return 1 if takes_candidate(rollout.rollout_id, session_id, rollout.basis_points) else 2


async def drawn(
    client: Client, rollout: rollout_pb2.Rollout, live: int, *, candidates: int
) -> tuple[list[str], list[str]]:
    """Opens sessions until so many drew the candidate and so many the live revision."""
    found: dict[int, list[str]] = {1: [], 2: []}
    while len(found[1]) < candidates or len(found[2]) < live:
        session_id = await client.session(rollout.agent_id)
        found[expected(rollout, session_id)].append(session_id)
    return found[1][:candidates], found[2][:live]


async def test_a_session_keeps_its_revision_on_every_replica_and_at_every_turn(client: Client, stage: Stage) -> None:
    agent_id = await revised(client)
    rollout = await start(client, agent_id, 5_000)
    candidates, live = await drawn(client, rollout, 6, candidates=6)
    opened = candidates + live
    await until(lambda: _felt(client, opened, rollout))
    async with stage.second_gateway() as gateway, gateway.channel(client.tenant.api_key) as second:
        for channel in (second, client.channel("gateway"), second):
            client._channels["gateway"] = channel
            runs = [await client.create(session_id) for session_id in opened]
            assert [run.agent_revision for run in runs] == [expected(rollout, session_id) for session_id in opened]


async def _felt(client: Client, opened: list[str], rollout: rollout_pb2.Rollout) -> bool:
    """Whether the gateway knows of a rollout: a session that drew the candidate is driven by it."""
    mine = next(session_id for session_id in opened if expected(rollout, session_id) == 1)
    return await driven_by(client, mine, 1)


async def test_ten_thousand_sessions_are_resolved_alike_and_from_memory(client: Client, stage: Stage) -> None:
    agent_id = await revised(client)
    rollout = await start(client, agent_id, 1_000)
    opened = sessions(10_000)
    identity = Identity(
        kind=CallerKind.SERVICE, tenant_id=client.tenant_id, principal="service:gateway", service="gateway"
    )
    telemetry = stage.gateway.telemetry
    chosen = []
    for _ in range(2):
        channel = connect(
            stage.services["registry"].address,
            telemetry=telemetry,
            tls=None,
            tokens=ServiceTokens(SERVICE_KEY, "gateway"),
        )
        async with channel:
            metrics = CollectorRegistry()
            agents = Agents(RegistryPeer(channel), AgentMetrics(metrics))
            watch = asyncio.create_task(agents.watch())
            try:
                await until(lambda metrics=metrics: _followed(metrics))  # type: ignore[misc]
                before = resolved(stage)
                with acting_as(identity):
                    snapshots = [(await agents.resolve(UUID(agent_id))).snapshot_for(session) for session in opened]
                # Once; and once more for each change that its making tells of, a moment later: created, activated,
                # updated, rolled out.
                assert 1 <= resolved(stage) - before <= 5
            finally:
                watch.cancel()
        chosen.append([snapshot.agent.revision for snapshot in snapshots])
    assert chosen[0] == chosen[1] == [expected(rollout, str(session)) for session in opened]
    # By chance, five deviations apart (each rollout draws anew); the hundredth is shown of draws that stay the same.
    assert abs(chosen[0].count(1) / 10_000 - 0.1) <= 0.015


async def _followed(metrics: CollectorRegistry) -> bool:
    return metrics.get_sample_value("agents_feed_up") == 1


async def test_a_failing_candidate_gives_its_sessions_back_by_itself(client: Client, stage: Stage) -> None:
    agent_id = await revised(client, candidate=BROKEN)
    rollout = await start(client, agent_id, 5_000, min_runs=3)
    candidates, live = await drawn(client, rollout, 3, candidates=3)
    await until(lambda: driven_by(client, candidates[0], 1))
    clock = asyncio.get_running_loop().time
    began = clock()
    for session_id in candidates:
        run = await client.create(session_id)
        if run.agent_revision == 2:
            break  # It was given back already.
        assert run.state == run_pb2.RUN_STATE_FAILED
    for session_id in live:
        assert (await client.create(session_id)).state == run_pb2.RUN_STATE_COMPLETED

    async def aborted() -> rollout_pb2.Rollout | None:
        found = await get(client, rollout.rollout_id)
        return found if found.status == rollout_pb2.ROLLOUT_STATUS_ABORTED else None

    ended: rollout_pb2.Rollout = await until(aborted, seconds=60)
    assert ended.breached_guardrail == rollout_pb2.ROLLOUT_GUARDRAIL_ERROR_RATE
    assert ended.last_check.candidate.error_rate == 1
    # The next turn of those sessions is the live revision's, and works.
    for session_id in candidates:
        await until(lambda session=session_id: driven_by(client, session, 2))  # type: ignore[misc]
        assert (await client.create(session_id)).state == run_pb2.RUN_STATE_COMPLETED
    assert clock() - began < 60


async def test_an_end_is_felt_within_a_second(client: Client) -> None:
    agent_id = await revised(client)
    session_id = await client.session(agent_id)
    clock = asyncio.get_running_loop().time

    async def felt(revision: int) -> float:
        began = clock()
        await until(lambda: driven_by(client, session_id, revision))
        return clock() - began

    begun = ended = math.inf
    for _ in range(5):
        rollout = await start(client, agent_id, 10_000)
        begun = min(begun, await felt(1))
        request = rollout_service_pb2.AbortRolloutRequest(rollout_id=rollout.rollout_id, reason="enough")
        await rollouts(client).AbortRollout(request)
        ended = min(ended, await felt(2))
        # The best of a few: what disturbs a measurement only lengthens it.
        if max(begun, ended) < 1.5:
            break
    assert max(begun, ended) < 1.5


async def test_a_run_that_was_accepted_keeps_its_revision(client: Client, provider: FakeProvider) -> None:
    agent_id = await revised(client)
    rollout = await start(client, agent_id, 10_000)
    session_id = await client.session(agent_id)
    await until(lambda: driven_by(client, session_id, 1))
    provider.push(Fault(FaultKind.STALL))
    running = asyncio.create_task(client.create(session_id))
    asked = len(provider.ledger.asked)
    await until(lambda: _asked(provider, asked + 1))
    await rollouts(client).AbortRollout(
        rollout_service_pb2.AbortRolloutRequest(rollout_id=rollout.rollout_id, reason="enough")
    )
    provider.release()
    run = await running
    assert (run.state, run.agent_revision) == (run_pb2.RUN_STATE_COMPLETED, 1)
    await until(lambda: driven_by(client, session_id, 2))


async def _asked(provider: FakeProvider, count: int) -> bool:
    return len(provider.ledger.asked) >= count


async def test_a_promoted_candidate_drives_everybody(client: Client) -> None:
    agent_id = await revised(client)
    rollout = await start(client, agent_id, 1)
    session_id = (await drawn(client, rollout, 1, candidates=0))[1][0]
    assert await driven_by(client, session_id, 2)
    await rollouts(client).PromoteRollout(rollout_service_pb2.PromoteRolloutRequest(rollout_id=rollout.rollout_id))
    await until(lambda: driven_by(client, session_id, 1))


async def test_while_the_registry_is_away_what_is_known_is_served_and_said(client: Client, stage: Stage) -> None:
    agent_id = await revised(client)
    rollout = await start(client, agent_id, 5_000)
    (mine,), (other,) = await drawn(client, rollout, 1, candidates=1)
    async with FaultProxy("127.0.0.1", stage.ports["registry"]) as proxy:
        replica = stage.second_gateway(registry_address=proxy.address)
        # No API key, whose check would need the registry too.
        async with replica as gateway, gateway.acting(client.tenant_id, service="cli") as channel:
            client._channels["gateway"] = channel

            async def up() -> bool:
                return gateway.metric("agents_feed_up") == 1

            await until(up)
            await until(lambda: driven_by(client, mine, 1))
            proxy.set_mode(Mode.REFUSE)
            proxy.cut()

            async def down() -> bool:
                return gateway.metric("agents_feed_up") == 0

            await until(down)

            async def stale() -> bool:
                # Each as it drew.
                assert await driven_by(client, mine, 1)
                assert await driven_by(client, other, 2)
                return (gateway.metric("agents_stale_total") or 0) > 0

            await until(stale)
            assert gateway.metric("agents_known") == 1
            proxy.set_mode(Mode.PASS)
            await until(up)
