"""Summaries while the session service is away: what was paid for waits for it, and is not asked for again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.fault_proxy import FaultProxy, Mode
from minion_testing.postgres import ClonedDatabase
from minion_testing.provider_script import Fault, FaultKind, Script

from tests.minion_gateway.runs.stage import Client, Stage, rows, staging, until
from tests.minion_gateway.summaries.told import LONG, QUESTION, policy, say, settled, steps, summaries


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Stage]:
    """Services whose own gateway looks for nobody's summaries."""
    async with staging(postgres, model_cache, summary_poll_seconds=60) as running:
        yield running


async def test_an_answer_waits_for_a_session_service_that_is_away(
    stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    async with FaultProxy("127.0.0.1", stage.ports["session"]) as proxy:
        far = stage.second_gateway(session_address=proxy.address)
        async with far as gateway, Client(stage, gateway) as client:
            provider.push(Script(Fault(FaultKind.STALL), match=QUESTION))
            session_id = await client.conversation(behavior=policy())
            await say(client, session_id, LONG, "Indeed.")
            run = await client.create(session_id, "And you?")

            async def asked() -> bool:
                return any(QUESTION in each.body["messages"][-1]["content"] for each in provider.ledger.asked)

            await until(asked)
            proxy.set_mode(Mode.REFUSE)
            proxy.cut()
            provider.release()

            async def put_off() -> bool:
                count = "SELECT 1 FROM gateway.summary_jobs WHERE session_id = $1 AND deferral_count > 0"
                return bool(await rows(owner, count, session_id))

            await until(put_off)
            assert await summaries(client, session_id) == []
            proxy.set_mode(Mode.PASS)
            await settled(owner, session_id)
            (summary,) = await summaries(client, session_id)
    assert (summary.last_sequence, summary.run_id) == (2, run.run_id)
    assert [each.attempt for each in provider.ledger.asked] == [f"{run.run_id}:2:1", f"{run.run_id}:4:1"]
    assert (await steps(owner, run.run_id))[-1] == (4, "summary", "DONE")
