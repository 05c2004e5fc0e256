"""`minion agents apply` and `export` against a registry: agents that live in git."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import typer
import yaml
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_cli import agent_files
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from minion_testing.tenants import new_tenant

from tests.minion_registry.stage import Caller, calling

TOOLS = """\
kind: Tool
name: now
description: Tells the time.
input_schema: {type: object, properties: {zone: {type: string}}}
transport: TOOL_TRANSPORT_BUILTIN
builtin: clock
effect: TOOL_EFFECT_READ_ONLY
cost_per_call_nanos: 5
"""
SUPPORT = """\
kind: Agent
name: support
display_name: Support
behavior_type: tool_use
instructions: |
  Be brief.
  Be kind.
llm: {model: local/stand-in, temperature: 0, response_schema: {type: object, maxProperties: 3}}
capabilities: [refunds, refunds, parcels]
behavior:
  max_steps: 4
  max_duration: 90s
  memory: {recall: true}
  summary: {enabled: true, keep_messages: 0}
  context: {}
metadata: {team: blue, size: 3, ratio: 0.5}
labels: {tier: gold}
status: active
tools:
  - name: now
    configuration: {zone: UTC}
"""
BOTH = f"{TOOLS}---\n{SUPPORT}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """A running registry."""
    async with serve("registry", postgres) as served:
        yield served


@dataclass(frozen=True, slots=True)
class Terminal:
    """A directory in which a tenant's user runs `minion`."""

    caller: Caller
    directory: Path
    environ: dict[str, str]

    def write(self, text: str, name: str = "agents.yaml") -> None:
        """Writes a file."""
        (self.directory / name).write_text(text, encoding="utf-8")

    async def run(
        self, *arguments: str, given: str = "", code: int = 0, terminal: int | None = None
    ) -> tuple[str, str]:
        """Runs a command, gives what it printed on both channels; fails when it ends otherwise than with `code`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "minion_cli", *arguments),
            stdin=asyncio.subprocess.PIPE if terminal is None else terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env=self.environ,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode() if terminal is None else None)
        assert process.returncode == code, err.decode()
        return out.decode(), err.decode()

    async def apply(self, *arguments: str, code: int = 0) -> str:
        """Applies the file."""
        return (await self.run("agents", "apply", "-f", "agents.yaml", *arguments, code=code))[0]


@asynccontextmanager
async def terminal_of(registry: Served, directory: Path) -> AsyncIterator[Terminal]:
    """A user of a tenant of its own."""
    tenant = await new_tenant(registry)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MINION_", "OTEL_"))}
    environ = {**kept, "MINION_REGISTRY_ADDRESS": registry.address, "MINION_API_KEY": tenant.api_key}
    async with calling(registry, tenant) as caller:
        yield Terminal(caller, directory, environ)


@pytest_asyncio.fixture(loop_scope="session")
async def terminal(registry: Served, tmp_path: Path) -> AsyncIterator[Terminal]:
    """The test's user."""
    async with terminal_of(registry, tmp_path) as opened:
        yield opened


async def named(terminal: Terminal, name: str = "support") -> agent_pb2.Agent:
    """The agent as the registry has it."""
    return (await terminal.caller.agents.GetAgent(pb.GetAgentRequest(name=name))).agent


async def bound(terminal: Terminal, agent_id: str) -> list[agent_pb2.AgentTool]:
    """The agent's tools."""
    request = pb.ListAgentToolsRequest(agent_id=agent_id)
    return list((await terminal.caller.agents.ListAgentTools(request)).agent_tools)


async def test_what_is_described_is_made_and_made_once(terminal: Terminal) -> None:
    terminal.write(BOTH)
    shown = await terminal.apply("--dry-run")
    assert shown.startswith("tool now: create\n")
    assert "agent support: create\n" in shown
    assert not (await terminal.caller.agents.ListAgents(pb.ListAgentsRequest())).agents
    assert await terminal.apply("--dry-run", "--exit-code", code=1) == shown
    assert await terminal.apply("--yes") == shown
    made = await named(terminal)
    assert made.status == agent_pb2.AGENT_STATUS_ACTIVE
    assert made.instructions == "Be brief.\nBe kind.\n"
    assert made.capabilities == ["refunds", "parcels"]
    assert made.behavior.summary.HasField("keep_messages")
    (tool,) = await bound(terminal, made.agent_id)
    assert (tool.tool.name, tool.configuration["zone"], tool.tool.cost_per_call_nanos) == ("now", "UTC", 5)
    for options in ((), ("--yes",), ("--dry-run", "--exit-code"), ("--stage",)):
        assert await terminal.apply(*options) == "tool now: unchanged\nagent support: unchanged\n"
    assert await named(terminal) == made


async def test_a_change_is_shown_and_made(terminal: Terminal) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    before = await named(terminal)
    await terminal.caller.register(name="other")
    changed = (
        BOTH.replace("Be kind.", "Be wise.")
        .replace("max_steps: 4", "max_steps: 5")
        .replace("status: active", "status: inactive")
        .replace("{zone: UTC}", "{zone: CET}\n  - name: other")
    )
    terminal.write(changed)
    shown = await terminal.apply("--yes")
    for line in (
        "  behavior.max_steps: 4 -> 5",
        "    -Be kind.",
        "    +Be wise.",
        '  tools.now: {"zone": "UTC"} -> {"zone": "CET"}',
        "  tools.other: (none) -> {}",
        '  status: "active" -> "inactive"',
    ):
        assert line in shown.splitlines(), shown
    after = await named(terminal)
    assert (after.revision, after.behavior.max_steps, after.status) == (2, 5, agent_pb2.AGENT_STATUS_INACTIVE)
    assert after.metadata == before.metadata
    assert [(each.tool.name, dict(each.configuration)) for each in await bound(terminal, after.agent_id)] == [
        ("now", {"zone": "CET"}),
        ("other", {}),
    ]
    assert "unchanged" in await terminal.apply("--dry-run", "--exit-code")
    # What isn't said has its default; tools and status that aren't are left alone.
    terminal.write("kind: Agent\nname: support\nbehavior_type: tool_use\n")
    plan = json.loads(await terminal.apply("--yes", "-o", "json"))
    assert [(part["name"], part["action"]) for part in plan] == [("support", "update")]
    assert {change["field"] for change in plan[0]["changes"]} >= {"instructions", "metadata.team", "llm.model"}
    bare = await named(terminal)
    assert (bare.instructions, bare.status, len(await bound(terminal, bare.agent_id))) == (
        *("", agent_pb2.AGENT_STATUS_INACTIVE, 2),
    )
    terminal.write("kind: Agent\nname: support\nbehavior_type: tool_use\ntools: []\n")
    assert "  tools.other: {} -> (none)" in (await terminal.apply("--yes")).splitlines()
    assert await bound(terminal, bare.agent_id) == []


async def test_what_is_exported_changes_nothing_when_applied(terminal: Terminal) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    exported, _ = await terminal.run("agents", "export", "support", "--tools")
    assert "instructions: |\n  Be brief.\n  Be kind.\n" in exported
    documents = list(yaml.safe_load_all(exported))
    assert [(each["kind"], each["name"]) for each in documents] == [("Tool", "now"), ("Agent", "support")]
    assert not {"agent_id", "etag", "revision", "create_time"} & set(documents[1])
    out, _ = await terminal.run("agents", "apply", "-f", "-", "--dry-run", "--exit-code", given=exported)
    assert out == "tool now: unchanged\nagent support: unchanged\n"
    again, _ = await terminal.run("agents", "export", (await named(terminal)).agent_id, "--tools")
    assert again == exported


async def test_another_tenant_gets_the_same_from_the_same_files(
    terminal: Terminal, registry: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    exported, _ = await terminal.run("agents", "export", "support", "--tools")
    async with terminal_of(registry, tmp_path_factory.mktemp("other")) as other:
        other.write(exported)
        await other.apply("--yes")
        assert (await other.run("agents", "export", "support", "--tools"))[0] == exported


async def test_changes_are_staged(terminal: Terminal) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    terminal.write(BOTH.replace("Be kind.", "Be wise."))
    for _ in range(2):
        await terminal.apply("--yes", "--stage")
    now = await named(terminal)
    assert (now.revision, now.live_revision, now.latest_revision) == (1, 1, 2)
    assert now.instructions.endswith("Be kind.\n")
    terminal.write(BOTH.replace("Be kind.", "Be wise.").replace("max_steps: 4", "max_steps: 5"))
    shown = await terminal.apply("--yes", "--stage")
    # Laid over what was staged before.
    assert shown.splitlines()[1:] == ["agent support: update", "  behavior.max_steps: 4 -> 5"]
    request = pb.GetAgentRequest(name="support", revision=3)
    staged = (await terminal.caller.agents.GetAgent(request)).agent
    assert (staged.instructions.splitlines()[1], staged.behavior.max_steps) == ("Be wise.", 5)
    for text in (
        BOTH.replace("status: active", "status: inactive"),
        BOTH.replace("UTC", "CET"),
        BOTH.replace("name: support", "name: new"),
    ):
        terminal.write(text)
        await terminal.apply("--yes", "--stage", code=2)
    listed, _ = await terminal.run("agents", "revisions", "support")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["3", "newest"], ["2", "support"], ["1", "live"]]


async def test_a_change_of_a_tool_is_shown_with_the_binding_that_it_blocks(terminal: Terminal) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    terminal.write(BOTH.replace("Tells the time.", "Tells the time of a zone."))
    assert (await terminal.apply("--dry-run", "--exit-code", code=1)).splitlines() == [
        "tool now: update",
        '  description: "Tells the time." -> "Tells the time of a zone."',
        "agent support: update",
        '  tools.now: "bound as it was" -> "bound as it is"',
    ]
    terminal.write(SUPPORT.replace("name: now", "name: unheard_of"))
    _, err = await terminal.run("agents", "apply", "-f", "agents.yaml", "--dry-run", code=2)
    assert "document 1: there is no tool unheard_of, and none is described" in err


async def test_nobody_is_there_to_be_asked(terminal: Terminal) -> None:
    terminal.write(BOTH)
    _, err = await terminal.run("agents", "apply", "-f", "agents.yaml", code=2)
    assert err.startswith("error: USAGE: ")
    assert "--yes" in err
    assert not (await terminal.caller.agents.ListAgents(pb.ListAgentsRequest())).agents


@pytest.mark.parametrize(("answer", "code", "made"), [(b"y\n", 0, 1), (b"n\n", 130, 0)])
async def test_a_person_is_asked(terminal: Terminal, answer: bytes, code: int, made: int) -> None:
    terminal.write(BOTH)
    outside, inside = pty.openpty()
    try:
        os.write(outside, answer)
        _, err = await terminal.run("agents", "apply", "-f", "agents.yaml", code=code, terminal=inside)
        assert "Apply?" in err
    finally:
        os.close(outside)
        os.close(inside)
    assert len((await terminal.caller.agents.ListAgents(pb.ListAgentsRequest())).agents) == made


async def test_a_blocked_binding_is_bound_anew(terminal: Terminal, postgres: ClonedDatabase) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    (tool,) = await bound(terminal, (await named(terminal)).agent_id)
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.agent_tools SET bound_digest = repeat('0', 64) WHERE tool_id = $1::text::uuid",
            tool.tool.tool_id,
        )
    assert '  tools.now: "bound as it was" -> "bound as it is"' in (await terminal.apply("--yes")).splitlines()
    (again,) = await bound(terminal, tool.agent_id)
    assert again.bound_digest == again.tool.digest
    assert "agent support: unchanged" in await terminal.apply()


async def test_what_moved_since_it_was_shown_is_refused(terminal: Terminal) -> None:
    """The etag of the agent that was compared goes with the change; the commands below are what apply is made of."""
    terminal.write(BOTH)
    await terminal.apply("--yes")
    found = await named(terminal)
    await terminal.caller.agents.UpdateAgent(
        pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=found.agent_id, description="x"),
            update_mask=FieldMask(paths=["description"]),
        )
    )
    _, err = await terminal.run("agents", "rollback", "support", "1", "--etag", found.etag, code=1)
    assert err.startswith("error: ETAG_MISMATCH: ")
    out, _ = await terminal.run("agents", "rollback", "support", "1", "-o", "json")
    assert json.loads(out)["revision"] == "3"


async def test_agents_are_searched_and_show_their_cards(terminal: Terminal) -> None:
    terminal.write(BOTH)
    await terminal.apply("--yes")
    out, _ = await terminal.run("agents", "search", "refund", "-o", "json")
    assert [(hit["agent"]["name"], hit["score"]) for hit in json.loads(out)] == [("support", 0.6)]
    out, _ = await terminal.run("agents", "search", "--capability", "parcels")
    assert "support" in out
    out, _ = await terminal.run("agents", "list", "--metadata", '{"size": 3}', "-o", "json")
    assert [agent["name"] for agent in json.loads(out)] == ["support"]
    out, _ = await terminal.run("agents", "card", "support")
    assert json.loads(out)["name"] == "Support"


REFUSED: list[tuple[str, str]] = [
    ("name: x", "document 1: needs a kind"),
    ("kind: Agent", "document 1: needs a name"),
    (
        "kind: Agent\nname: a\n---\nkind: Agent\nname: b\nbehavior: {summary: {trigger: 5}}",
        "document 2: behavior.summary.trigger: no",
    ),
    ("kind: Agent\nname: a\nrevision: 3", "document 1: revision: no"),
    ("kind: Agent\nname: a\ndisplayName: x", "displayName: no"),
    ("kind: Agent\nname: a\nllm: {temperature: hot}", "temperature"),
    ("kind: Agent\nname: a\nstatus: archived", "status is none of draft, active, inactive"),
    ("kind: Agent\nname: a\ntools: [{name: x, config: {}}]", "tools[0].config: no"),
    ("kind: Agent\nname: a\ntools: [{name: x}, {name: x}]", "tools[1]: x is bound twice"),
    ("kind: Agent\nname: a\ntools: [now]", "tools[0] needs a name"),
    ("kind: Agent\nname: a\n---\nkind: Agent\nname: a", "document 2: Agent a is described twice"),
    ("kind: Tool\nname: a\ndigest: x", "digest: no"),
    ("kind: Tool\nname: a\nhttp: {address: x}", "http.address: no"),
    ("kind: Tool\nname: a\nexamples: [{arguments: {}, x: 1}]", "examples[0].x: no"),
    ("kind: [", "agents.yaml"),
    ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
]


@pytest.mark.parametrize(("text", "fault"), REFUSED, ids=range(len(REFUSED)))
def test_a_file_that_says_what_nobody_knows_is_refused_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(typer.BadParameter) as raised:
        agent_files.read([path])
    assert fault in raised.value.format_message()


def test_documents_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(BOTH, encoding="utf-8")
    documents = agent_files.read([path])
    agent, tool = documents.agents[0].agent, documents.tools[0].tool
    written: list[dict[str, Any]] = [agent_files.tool_document(tool), agent_files.agent_document(agent, [])]
    path.write_text(agent_files.write(written), encoding="utf-8")
    again = agent_files.read([path])
    assert again.tools[0].tool == tool
    assert agent_files.pruned(again.agents[0].agent) == agent_files.pruned(agent)
