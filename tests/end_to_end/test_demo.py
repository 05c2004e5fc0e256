"""`minion demo --json`: the whole story in one object, each part of which agrees with the others."""

import json
from pathlib import Path

from minion_testing.fake_provider import FakeProvider

from tests.end_to_end.stacks import RunningStack, minion, service_ports

_KEYS = {
    "agent_id", "session_ids", "run_ids", "answers", "recalled", "tool_calls", "usage", "cost_nanos", "activities",
    "seconds",
}  # fmt: skip


async def test_the_demo_tells_one_consistent_story(place: Path, plain_environ: dict[str, str]) -> None:
    done = await minion("demo", "--json", cwd=place, env={**plain_environ, **service_ports()})
    assert done.code == 0, done.err
    assert done.err == ""
    story = json.loads(done.out)
    assert set(story) == _KEYS
    assert len(story["session_ids"]) == len(set(story["session_ids"])) == 2
    assert len(story["run_ids"]) == len(set(story["run_ids"])) == len(story["answers"])
    assert all(story["answers"])

    # The second session knows what only the first was told.
    second = story["run_ids"][2:]
    recalled = " ".join(memory["content"] for memory in story["recalled"] if memory["run_id"] in second)
    assert "Ada" in recalled
    assert "tea" in recalled
    assert "Ada" in story["answers"][2]

    calls = {call["name"]: call for call in story["tool_calls"]}
    assert {"remember", "calculator", "clock"} <= set(calls)
    assert "391" in json.dumps(calls["calculator"]["output"])
    assert "391" in story["answers"][3]
    assert not any(call["is_error"] for call in story["tool_calls"])

    # The audit says the same: a row for each run and each tool call, and tokens that add up.
    rows = story["activities"]
    runs = [row for row in rows if row["kind"] == "ACTIVITY_KIND_RUN"]
    assert sorted(row["run_id"] for row in runs) == sorted(story["run_ids"])
    tools = [row for row in rows if row["kind"] == "ACTIVITY_KIND_TOOL_CALL"]
    assert sorted((row["run_id"], row["name"]) for row in tools) == sorted(
        (call["run_id"], call["name"]) for call in story["tool_calls"]
    )
    assert {row["status"] for row in rows} == {"ACTIVITY_STATUS_SUCCEEDED"}
    assert {row["agent_id"] for row in rows} == {story["agent_id"]}
    for field in ("input_tokens", "output_tokens"):
        assert story["usage"][field] == sum(int(row["usage"][field]) for row in runs) > 0
    assert story["seconds"] > 0
    # Nothing is left running, and the data is kept for `minion dev`.
    assert not (place / ".minion" / "stack.json").exists()
    assert (place / ".minion" / "postgres").is_dir()


async def test_the_demo_asks_the_provider_that_is_set(stack: RunningStack, plain_environ: dict[str, str]) -> None:
    """And steps aside of a stack that runs in its directory and holds its ports."""
    async with FakeProvider(api_key="good") as provider:
        env = {
            **plain_environ,
            "OPENAI_API_KEY": "good",
            "OPENAI_BASE_URL": provider.base_url,
            "MINION_GATEWAY_PORT": stack.addresses["gateway"].rpartition(":")[2],
        }
        done = await minion("demo", cwd=stack.directory.parent, env=env)
        asked = len(provider.ledger.asked)
    assert (stack.directory / "demo" / "postgres").is_dir()
    assert "minion_cli dev --directory .minion/demo" in done.out
    assert done.code == 0, done.err
    assert asked >= 4
    assert "stand-in" not in done.out
    for part in (
        "echo: Hello! My name is Ada.",
        "Turn 1 as one trace, through activity, gateway, memory, registry, session",
        "Tokens and cost",
        "The audit: ",
        "grpcurl -plaintext",
    ):
        assert part in done.out


async def test_a_refused_key_is_told_in_one_line(place: Path, plain_environ: dict[str, str]) -> None:
    async with FakeProvider(api_key="good") as provider:
        env = {**plain_environ, **service_ports(), "OPENAI_API_KEY": "wrong", "OPENAI_BASE_URL": provider.base_url}
        done = await minion("demo", "--json", cwd=place, env=env)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: PROVIDER_CREDENTIAL_REFUSED: ")
    assert len(done.err.splitlines()) == 1
