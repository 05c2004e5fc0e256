"""A database whose line is cut while a summary is made: what stands is read by key, and nothing is written twice."""

import asyncio
from urllib.parse import parse_qs, urlsplit

from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.fault_proxy import FaultProxy
from minion_testing.provider_script import Reply, Script

from tests.minion_gateway.runs.stage import Client, Stage, rows
from tests.minion_gateway.summaries.told import LONG, QUESTION, policy, say, settled, summaries


async def test_a_summary_over_a_line_that_is_cut_again_and_again_is_made_once(
    stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    place = urlsplit(stage.database.dsn("gateway"))
    (port,) = parse_qs(place.query)["port"]
    async with FaultProxy("127.0.0.1", int(port)) as proxy:
        through = f"postgresql://{place.netloc}{proxy.address}{place.path}"
        async with (
            stage.second_gateway(database_url=through, lease_seconds=5, outbox_claim_seconds=1) as unlucky,
            Client(stage, unlucky) as client,
        ):
            provider.push(Script(Reply("Once.", first_byte_seconds=0.2), match=QUESTION, times=None))
            session_id = await client.conversation(behavior=policy())
            await say(client, session_id, LONG, "Indeed.")
            run = await client.create(session_id, "And you?")

            async def cutting() -> None:
                for cuts in range(40):
                    proxy.cut()
                    await asyncio.sleep(0.007 * (1 + cuts % 3))

            await cutting()
            await settled(owner, session_id)
            (summary,) = await summaries(client, session_id)
            audit = await client.audit(run.run_id, 3)
    assert (summary.text, summary.last_sequence) == ("Once.", 2)
    bill = await rows(owner, "SELECT step_sequence FROM gateway.ledger WHERE run_id = $1 ORDER BY 1", run.run_id)
    assert [row["step_sequence"] for row in bill] == [2, 4]
    assert sorted(row.step_sequence for row in audit) == [0, 2, 4]
    attempts = await rows(
        owner, "SELECT step_sequence, attempt, state FROM gateway.attempts WHERE run_id = $1", run.run_id
    )
    assert {row["state"] for row in attempts} <= {"DONE", "LOST"}
    ours = {f"{run.run_id}:{row['step_sequence']}:{row['attempt']}" for row in attempts}
    assert set(provider.ledger.attempts) <= ours
