"""ListRunSteps."""

from uuid import UUID

import grpc
import pytest
from minion.gateway.v1 import run_service_pb2 as pb
from minion.gateway.v1 import run_step_pb2 as steps
from minion_postgres import pages
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply

from tests.minion_gateway.runs.stage import Client, Stage

NOWHERE = "018f0000-0000-7000-8000-000000000000"


async def listed(client: Client, run_id: str, **fields: object) -> pb.ListRunStepsResponse:
    request = pb.ListRunStepsRequest(run_id=run_id, **fields)  # type: ignore[arg-type]
    answer: pb.ListRunStepsResponse = await client.runs.ListRunSteps(request)
    return answer


async def test_steps_come_in_order_with_what_they_took(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation(tools=("calculator",))
    provider.push(Reply(tool_calls=(("calculator", '{"expression": "6*7"}'),)), Reply("42."))
    run = await client.create(session_id)
    found = (await listed(client, run.run_id)).steps
    assert [(step.sequence, steps.RunStepKind.Name(step.kind), step.name) for step in found] == [
        (1, "RUN_STEP_KIND_BEGIN", ""),
        (2, "RUN_STEP_KIND_LLM", "openai/gpt-4o-mini"),
        (3, "RUN_STEP_KIND_TOOL", "calculator"),
        (4, "RUN_STEP_KIND_LLM", "openai/gpt-4o-mini"),
        (5, "RUN_STEP_KIND_APPEND", ""),
    ]
    assert all(step.state == steps.RUN_STEP_STATE_DONE and step.attempt == 1 for step in found)
    assert all(step.end_time.ToNanoseconds() >= step.start_time.ToNanoseconds() for step in found)
    assert found[2].tool_call_id
    assert sum(step.usage.input_tokens for step in found) == run.usage.input_tokens
    assert sum(step.cost_nanos for step in found) == run.cost_nanos
    assert not found[0].HasField("usage")
    assert not found[0].HasField("cost_nanos")


async def test_a_step_that_failed_says_why(client: Client, provider: FakeProvider) -> None:
    provider.push(Fault(FaultKind.KEY_REFUSED))
    run = await client.create(await client.conversation())
    asked = (await listed(client, run.run_id)).steps[1]
    assert (asked.state, asked.error_reason) == (steps.RUN_STEP_STATE_FAILED, run.error.reason)


async def test_pages_follow_each_other(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation(tools=("clock",))
    provider.push(Reply(tool_calls=(("clock", "{}"),) * 3), Reply("Late."))
    run = await client.create(session_id)
    seen: list[int] = []
    token = ""
    while True:
        page = await listed(client, run.run_id, page_size=2, page_token=token)
        seen += [step.sequence for step in page.steps]
        token = page.next_page_token
        if not token:
            break
        assert len(page.steps) == 2
    assert seen == list(range(1, 8))


async def test_a_token_belongs_to_its_run(client: Client) -> None:
    session_id = await client.conversation()
    first, second = await client.create(session_id), await client.create(session_id)
    token = (await listed(client, first.run_id, page_size=1)).next_page_token
    for run_id, wrong in ((second.run_id, token), (first.run_id, "x")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await listed(client, run_id, page_token=wrong)


@pytest.mark.parametrize(
    ("fields", "field"), [({"run_id": "7"}, "run_id"), ({"run_id": NOWHERE, "page_size": -1}, "page_size")]
)
async def test_a_field_beyond_its_limit_is_named(client: Client, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await client.runs.ListRunSteps(pb.ListRunStepsRequest(**fields))  # type: ignore[arg-type]
    assert list(refusal.violations) == [field]


async def test_another_tenants_run_is_no_run(client: Client, stage: Stage) -> None:
    run = await client.create(await client.conversation())
    async with Client(stage) as stranger:
        for run_id in (run.run_id, NOWHERE):
            async with refused(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"):
                await listed(stranger, run_id)


async def test_a_token_beyond_the_last_step_that_there_can_be_opens_an_empty_page(client: Client) -> None:
    run = await client.create(await client.conversation())
    # Nobody was given it; it is taken for what it says all the same.
    token = pages.encode([2**40], {"run_id": UUID(run.run_id)})
    assert not (await listed(client, run.run_id, page_token=token)).steps
