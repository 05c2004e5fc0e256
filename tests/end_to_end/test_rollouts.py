"""`minion rollouts` against a running stack, whose registry finds its activity service by itself."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc
from minion_cli.__main__ import run

from tests.end_to_end.stacks import RunningStack

Show = Callable[..., Any]
_JUDGED_SECONDS = 120.0


@pytest.fixture
def shown(stack: RunningStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Runs a command in the stack's directory and gives its JSON; fails when the command does."""
    monkeypatch.chdir(stack.directory.parent)
    for name in ("MINION_API_KEY", "MINION_OPERATOR_KEY"):
        monkeypatch.delenv(name, raising=False)

    def show(*arguments: str) -> Any:
        assert run([*arguments, "-o", "json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return show


@pytest.fixture
def told(shown: Show, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that is refused and gives its one line."""
    del shown

    def tell(*arguments: str) -> str:
        assert run(list(arguments)) == 1
        return capsys.readouterr().err

    return tell


def _revise(stack: RunningStack, name: str) -> None:
    async def update() -> None:
        async with stack.channel("registry") as channel:
            agents = agent_service_pb2_grpc.AgentServiceStub(channel)
            found = await agents.GetAgent(agent_service_pb2.GetAgentRequest(name=name), metadata=stack.metadata)
            changed = agent_pb2.Agent(agent_id=found.agent.agent_id, instructions="Be kind.")
            request = agent_service_pb2.UpdateAgentRequest(agent=changed)
            request.update_mask.paths.append("instructions")
            await agents.UpdateAgent(request, metadata=stack.metadata)

    asyncio.run(update())


def test_a_rollouts_life(stack: RunningStack, shown: Show, told: Callable[..., str]) -> None:
    shown("agents", "create", "rolled", "--instructions", "Be brief.", "--activate")
    assert told("rollouts", "show", "rolled").startswith("error: ROLLOUT_NOT_FOUND: ")
    _revise(stack, "rolled")
    made = shown("rollouts", "start", "rolled", "--revision", "1", "--steps", "0.5:1h,50,100", "--max-p95", "8s")
    assert [step["basis_points"] for step in made["steps"]] == [50, 5_000, 10_000]
    assert made["steps"][0]["duration"] == "3600s"
    assert made["guardrails"] == {"min_runs": 20, "max_p95_duration": "8s"}
    assert told("rollouts", "start", "rolled", "--revision", "1", "--percent", "1").startswith(
        "error: ROLLOUT_RUNNING: "
    )
    assert shown("rollouts", "advance", "rolled", "--step", "3")["basis_points"] == 10_000
    # The stack's activity service was asked, and says that it has no evaluations.
    assert "UNSUPPORTED" in told("rollouts", "promote", "rolled")
    aborted = shown("rollouts", "abort", made["rollout_id"], "--reason", "Too brief.")
    assert (aborted["status"], aborted["abort_reason"]) == ("ROLLOUT_STATUS_ABORTED", "Too brief.")
    again = shown("rollouts", "start", "rolled", "--revision", "1", "--percent", "10", "--no-evidence")
    assert again["guardrails"] == {"min_runs": 20, "max_error_rate": 0.05}
    assert shown("rollouts", "promote", "rolled")["status"] == "ROLLOUT_STATUS_PROMOTED"
    assert shown("agents", "get", "rolled")["instructions"] == "Be brief."
    listed = shown("rollouts", "list", "--agent", "rolled")
    assert [rollout["rollout_id"] for rollout in listed] == [again["rollout_id"], made["rollout_id"]]
    assert shown("rollouts", "list", "--agent", "rolled", "--status", "running") == []
    assert run(["rollouts", "list", "--agent", "rolled"]) == 0


@pytest.mark.parametrize(
    "options", [(), ("--percent", "10", "--steps", "10,20"), ("--percent", "0"), ("--steps", "10:1y")]
)
def test_shares_that_are_none_are_usage_errors(shown: Show, options: tuple[str, ...]) -> None:
    del shown
    assert run(["rollouts", "start", "demo", "--revision", "1", *options]) == 2


def test_figures_come_of_the_stacks_own_activity_service(stack: RunningStack, shown: Show) -> None:
    shown("agents", "create", "judged", "--activate")
    _revise(stack, "judged")
    shown("rollouts", "start", "judged", "--revision", "1", "--percent", "10")

    # On a machine that stands still a check may give up waiting for figures, and says why; the next one asks again.
    deadline = time.monotonic() + _JUDGED_SECONDS
    while "fault_reason" in (check := shown("rollouts", "show", "judged").get("last_check", {"fault_reason": "NONE"})):
        assert time.monotonic() < deadline, check
        time.sleep(0.2)
    assert check["check_time"]
