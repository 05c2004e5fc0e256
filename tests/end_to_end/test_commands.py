"""The nouns of `minion` against a running stack, found through `.minion` as a user's commands find it."""

import asyncio
import errno
import io
import json
import os
import pty
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from minion_cli.__main__ import run

from tests.end_to_end.stacks import RunningStack

Show = Callable[..., Any]


@pytest.fixture
def shown(stack: RunningStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Runs a command in the stack's directory and gives its JSON; fails when the command does."""
    monkeypatch.chdir(stack.directory.parent)
    for name in ("MINION_API_KEY", "MINION_OPERATOR_KEY"):
        monkeypatch.delenv(name, raising=False)

    def show(*arguments: str, code: int = 0) -> Any:
        assert run([*arguments, "-o", "json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return show


@pytest.fixture
def told(shown: Show, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that is refused and gives its one line."""

    def tell(*arguments: str) -> str:
        assert run(list(arguments)) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        return captured.err

    return tell


class Torn(io.RawIOBase):
    """Input from a terminal that is gone."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def talk(shown: Show, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Sends lines to `minion chat` through a pipe and gives what it printed."""

    def say(text: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert run(["chat", *arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return say


def test_an_agents_life(shown: Show, told: Callable[..., str]) -> None:
    made = shown("agents", "create", "short-lived", "--tool", "clock", "--instructions", "Be brief.")
    assert made["status"] == "AGENT_STATUS_DRAFT"
    assert [each["tool"]["name"] for each in shown("agents", "tools", "short-lived")] == ["clock"]
    assert shown("agents", "activate", "short-lived")["status"] == "AGENT_STATUS_ACTIVE"
    assert shown("agents", "get", made["agent_id"])["name"] == "short-lived"
    assert "short-lived" in [agent["name"] for agent in shown("agents", "list", "--status", "active")]
    assert told("agents", "archive", "short-lived").startswith("error: AGENT_TRANSITION_ILLEGAL: ")
    assert shown("agents", "deactivate", "short-lived")["status"] == "AGENT_STATUS_INACTIVE"
    assert told("agents", "activate", "short-lived", "--etag", "old").startswith("error: ETAG_MISMATCH: ")
    assert shown("agents", "archive", "short-lived")["status"] == "AGENT_STATUS_ARCHIVED"
    assert told("agents", "create", "short-lived").startswith("error: AGENT_NAME_TAKEN: ")
    assert told("agents", "create", "No Name").startswith("error: INVALID_FIELDS: ")


def test_a_tools_life(
    shown: Show, told: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tool.yaml"
    path.write_text(
        "name: zoned_clock\ndescription: Tells the time.\ntransport: TOOL_TRANSPORT_BUILTIN\nbuiltin: clock\n"
        "effect: TOOL_EFFECT_READ_ONLY\ninput_schema: {type: object, properties: {timezone: {type: string}}}\n"
        "default_configuration: {style: long}\nlabels: {team: core}\n"
    )
    made = shown("tools", "register", "--file", str(path))
    agent = shown("agents", "create", "clockwork")
    assert [tool["name"] for tool in shown("tools", "list", "--label", "team=core")] == ["zoned_clock"]
    bound = shown("agents", "bind", "clockwork", "zoned_clock", "--configuration", '{"zone": "UTC"}')
    assert bound["merged_configuration"] == {"style": "long", "zone": "UTC"}
    assert shown("tools", "validate", "zoned_clock", '{"timezone": "UTC"}') == {"valid": True}
    refused = shown("tools", "validate", "zoned_clock", '{"timezone": 3}', code=1)
    assert [fault["path"] for fault in refused["violations"]] == ["/timezone"]
    # What is shown can be changed and given back.
    assert run(["tools", "show", "zoned_clock", "-o", "yaml"]) == 0
    path.write_text(capsys.readouterr().out.replace("Tells the time.", "Tells the time, always."))
    changed = shown("tools", "update", made["tool_id"], "--file", str(path), "--etag", made["etag"])
    assert changed["blocked_binding_count"] == "1"
    assert [each["state"] for each in shown("agents", "tools", "clockwork")] == ["BINDING_STATE_DIGEST_CHANGED"]
    assert told("agents", "bind", "clockwork", "zoned_clock", "--expect", made["digest"]).startswith(
        "error: DIGEST_MISMATCH: "
    )
    shown("agents", "bind", agent["agent_id"], "zoned_clock", "--expect", changed["tool"]["digest"])
    assert [each["state"] for each in shown("agents", "tools", "clockwork")] == ["BINDING_STATE_USABLE"]
    assert [each["version"] for each in shown("tools", "versions", "zoned_clock")] == ["2", "1"]
    assert shown("tools", "show", "zoned_clock", "--version", "1")["description"] == "Tells the time."
    assert shown("tools", "deprecate", "zoned_clock", "--note", "Use clock.")["status_note"] == "Use clock."
    assert shown("tools", "retire", "zoned_clock")["blocked_binding_count"] == "1"
    assert run(["agents", "unbind", "clockwork", "zoned_clock"]) == 0
    assert capsys.readouterr().out == "unbound\n"
    assert told("tools", "deprecate", "zoned_clock").startswith("error: TOOL_TRANSITION_ILLEGAL: ")


def test_a_chat_tells_of_summaries(shown: Show, talk: Callable[..., list[str]], tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    policy = "{enabled: true, trigger_tokens: 256, target_tokens: 100, keep_messages: 0}"
    behavior = f"behavior: {{context: {{max_messages: 2}}, summary: {policy}}}"
    path.write_text(f"name: talkative\nbehavior_type: conversational\n{behavior}\n", encoding="utf-8")
    shown("agents", "create", "--file", str(path), "--activate")
    said = "".join(f"Number {n}. {'A long and rainy day. ' * 60}\n" for n in range(8))
    lines = talk(said, "talkative")
    session_id = lines[-1].split()[-1]

    def told(words: str) -> bool:
        return any(line.startswith("  summary   messages 1 to ") and words in line for line in lines)

    # Summaries are made beside the talk, when there is time: sooner or later one is new in a turn, and one is used.
    deadline = time.monotonic() + 60
    while not (told("by local/stand-in") and told("stand as")):
        assert time.monotonic() < deadline, lines
        lines += talk(said, "--session", session_id)


def test_an_agent_from_a_file_is_the_one_that_was_read(
    shown: Show, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agents", "get", "demo", "-o", "yaml"]) == 0
    path = tmp_path / "agent.yaml"
    path.write_text(capsys.readouterr().out)
    content = yaml.safe_load(path.read_text())
    content.pop("agent_id")
    path.write_text(yaml.safe_dump(content))
    made = shown("agents", "create", "demo-copy", "--file", str(path))
    assert made["instructions"] == content["instructions"]
    assert made["behavior"] == content["behavior"]


def test_a_conversation_and_all_that_is_left_of_it(
    shown: Show, talk: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = talk("My favourite colour is teal.\nWhat is 6 * 7?\n", "demo", "--user", "grace")
    assert any("calls     remember(" in line for line in lines)
    assert any("calls     calculator(" in line for line in lines)
    assert any("42" in line for line in lines)
    assert sum("tokens in" in line and "cost" in line for line in lines) == 2
    session_id = lines[-1].split()[-1]

    again = talk("What is my favourite colour?\n", "--session", session_id)
    assert any("recalled" in line and "teal" in line for line in again)

    session = shown("sessions", "get", session_id)
    assert session["user_id"] == "grace"
    assert shown("sessions", "list", "--user", "grace")[0]["session_id"] == session_id
    texts = [part.get("text", "") for message in shown("sessions", "show", session_id) for part in message["parts"]]
    assert "What is 6 * 7?" in texts

    runs = shown("runs", "list", "--session", session_id)
    assert [run_["state"] for run_ in runs] == ["RUN_STATE_COMPLETED"] * 3
    assert shown("runs", "get", runs[0]["run_id"])["answer"] == runs[0]["answer"]
    assert run(["runs", "watch", runs[-1]["run_id"]]) == 0
    assert "remember" in capsys.readouterr().out
    started = shown("runs", "start", session_id, "What is 8 * 8?")
    assert "64" in started["answer"]

    memory = shown("memories", "list", "--agent", "demo", "--user", "grace")[0]
    assert "teal" in memory["content"]
    found = shown("memories", "search", "colour", "--agent", "demo", "--user", "grace")
    assert found[0]["memory"]["memory_id"] == memory["memory_id"]
    why = shown("memories", "search", "colour", "--agent", "demo", "--user", "grace", "--explain")
    assert why["plan"] == "SEARCH_PLAN_EXACT"
    assert why["hits"][0]["explanation"]["semantic"] > 0

    rows = _audit(shown, session_id, len(runs) + 1)
    assert {row["kind"] for row in rows} >= {"ACTIVITY_KIND_RUN", "ACTIVITY_KIND_LLM_CALL", "ACTIVITY_KIND_TOOL_CALL"}
    assert shown("activities", "get", rows[0]["activity_id"]) == rows[0]
    stats = shown("activities", "stats", "demo")
    assert int(stats["stats"]["run_count"]) >= len(runs) + 1
    assert shown("sessions", "close", session_id)["status"] == "SESSION_STATUS_CLOSED"


def test_a_sessions_life(
    shown: Show,
    told: Callable[..., str],
    talk: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    session_id = talk("What is 6 * 7?\n", "demo", "--user", "lin")[-1].split()[-1]
    described = tmp_path / "metadata.yaml"
    described.write_text("plan: pro")
    changed = shown("sessions", "update", session_id, "--name", "Sums", "--metadata", str(described))
    assert (changed["display_name"], changed["metadata"]) == ("Sums", {"plan": "pro"})
    assert told("sessions", "update", session_id, "--name", "x", "--etag", "old").startswith("error: ETAG_MISMATCH: ")
    assert run(["sessions", "extend", session_id, "--ttl", "soon"]) == 2
    assert "is no span such as 90s" in capsys.readouterr().err
    assert shown("sessions", "extend", session_id, "--ttl", "12h")["expire_time"]

    assert run(["sessions", "show", session_id]) == 0
    text = capsys.readouterr().out
    for line in ("name       Sums", "status     active", "user       lin", "messages ", "workspace ", "expires "):
        assert line in text
    assert "What is 6 * 7?" in text

    assert run(["sessions", "watch", session_id, "--until-synced"]) == 0
    assert "What is 6 * 7?" in capsys.readouterr().out
    assert run(["sessions", "watch", "--until-synced"]) == 0
    cursor = capsys.readouterr().out.split()[-1]
    assert told("sessions", "archive", session_id).startswith("error: SESSION_STATUS_FORBIDS: ")
    shown("sessions", "close", session_id)
    assert shown("sessions", "archive", session_id)["status"] == "SESSION_STATUS_ARCHIVED"
    assert session_id in [one["session_id"] for one in shown("sessions", "list", "--status", "archived")]
    assert run(["sessions", "cleanup"]) == 0
    assert capsys.readouterr().out == "0 expired, 0 deleted\n"
    assert run(["sessions", "delete", session_id]) == 0
    assert told("sessions", "get", session_id).startswith("error: SESSION_NOT_FOUND: ")

    def changes() -> list[str]:
        assert run(["sessions", "watch", "--cursor", cursor, "--until-synced", "-o", "json"]) == 0
        sent = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        kinds = [change["kind"].removeprefix("SESSION_CHANGE_KIND_") for change in sent]
        # What was changed before may stand behind the cursor too.
        return [kind for kind in kinds if kind not in ("ACTIVE", "SYNCED", "UPDATED")]

    # Whatever writes in the stack holds the feed back until it is done.
    deadline = time.monotonic() + 60
    while "DELETED" not in (kinds := changes()):
        assert time.monotonic() < deadline, kinds
    assert kinds == ["CLOSED", "ARCHIVED", "DELETED"]
    assert shown("sessions", "erase", "lin")["erasure_id"]


def test_what_a_model_is_shown_of_a_session(
    shown: Show, talk: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    session_id = talk("What is 6 * 7?\n", "demo", "--user", "alan")[-1].split()[-1]
    context = shown("sessions", "context", session_id, "--messages", "20")
    assert context["messages"][0]["parts"][0]["text"] == "What is 6 * 7?"
    assert context["token_count"] > 0
    assert run(["sessions", "context", session_id, "--messages", "2"]) == 0
    assert "older messages are left out" in capsys.readouterr().out
    assert shown("sessions", "summaries", session_id) == []
    assert run(["sessions", "show", session_id]) == 0
    assert "What is 6 * 7?" in capsys.readouterr().out

    given = place / "numbers.json"
    given.write_bytes(b"[" + b"6, " * 200_000 + b"7]")
    blob = shown("sessions", "put-blob", session_id, str(given))
    assert (blob["media_type"], blob["name"], int(blob["size_bytes"])) == (
        "application/json",
        "numbers.json",
        given.stat().st_size,
    )
    got = place / "got.json"
    assert run(["sessions", "get-blob", blob["blob_id"], "--to", str(got)]) == 0
    assert got.read_bytes() == given.read_bytes()
    assert run(["sessions", "get-blob", blob["blob_id"], "--to", str(got), "--offset", "1", "--length", "4"]) == 0
    assert got.read_bytes() == b"6, 6"

    fork = shown("sessions", "fork", session_id, "--at", "1", "--name", "Another way")
    assert (fork["parent_session_id"], fork["fork_sequence"], fork["last_sequence"]) == (session_id, "1", "1")
    assert fork["display_name"] == "Another way"
    shown("sessions", "close", session_id)


async def test_a_conversation_in_a_terminal(stack: RunningStack, plain_environ: dict[str, str]) -> None:
    terminal, inside = pty.openpty()
    process: asyncio.subprocess.Process | None = None
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "minion_cli", "chat", "--user", "edsger",
            stdin=inside, stdout=inside, stderr=inside, cwd=stack.directory.parent, env=plain_environ,
        )  # fmt: skip
        loop, seen, more = asyncio.get_running_loop(), bytearray(), asyncio.Event()

        def read() -> None:
            seen.extend(os.read(terminal, 65_536))
            more.set()

        async def wait_for(words: bytes) -> None:
            async with asyncio.timeout(60):
                while words not in seen:
                    more.clear()
                    await more.wait()
            # What follows may have come with it.
            del seen[: seen.index(words) + len(words)]

        loop.add_reader(terminal, read)
        await wait_for(b"you  ")
        os.write(terminal, b"What is 11 * 11?\n")
        await wait_for(b"121")
        await wait_for(b"you  ")
        os.write(terminal, b"\n")
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        asyncio.get_running_loop().remove_reader(terminal)
        os.close(terminal)
        os.close(inside)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        (io.BytesIO(b"\xff\n"), 1, "error: INVALID_FIELDS: What was said is no text in UTF-8.\n"),
        (io.BufferedReader(Torn()), 0, ""),
    ],
    ids=["no text", "a terminal that is gone"],
)
def test_a_conversation_that_can_t_be_read_ends(
    said: io.BytesIO | io.BufferedReader,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(said, encoding="utf-8"))
    assert run(["chat"]) == code
    assert capsys.readouterr().err == told


def test_memories_are_stored_found_and_deleted(
    shown: Show, told: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    stored = shown("memories", "store", "Trains run on rails.", "--agent", "demo", "--user", "linus", "--type", "fact")
    memory_id = stored["memory"]["memory_id"]
    assert stored["outcome"] == "STORE_OUTCOME_CREATED"
    assert shown("memories", "get", memory_id)["content"] == "Trains run on rails."
    hits = shown("memories", "search", "railway", "--agent", "demo", "--user", "linus", "-n", "1")
    assert hits[0]["memory"]["memory_id"] == memory_id
    assert run(["memories", "delete", memory_id]) == 0
    assert capsys.readouterr().out == f"deleted {memory_id}\n"
    gone = told("memories", "get", memory_id)
    assert gone == f"error: MEMORY_NOT_FOUND: There is no such memory (memory_id {memory_id}).\n"


def test_embedding_models_are_registered_and_memories_moved(
    shown: Show, told: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    local = "local/all-minilm-l6-v2"
    assert [model["name"] for model in shown("embeddings", "list") if model.get("is_default")] == [local]
    made = shown("embeddings", "register", "acme/nowhere", "7")
    assert (made["provider"], made["dimension"]) == ("acme", 7)
    for _ in range(600):
        # The stack's memory service makes room for it by itself.
        found = {model["name"]: model["state"] for model in shown("embeddings", "list")}
        if found["acme/nowhere"] == "EMBEDDING_MODEL_STATE_READY":
            break
        time.sleep(0.05)
    assert found["acme/nowhere"] == "EMBEDDING_MODEL_STATE_READY"
    shown("memories", "store", "Trains run on rails.", "--agent", "demo", "--user", "linus")
    assert told("embeddings", "default", "acme/nowhere").startswith("error: REEMBEDDING_NEEDED: ")
    assert told("embeddings", "default", "acme/none").startswith("error: EMBEDDING_MODEL_NOT_FOUND: ")
    refused = told("embeddings", "reembed", "acme/nowhere", "--wait")
    assert refused.startswith("error: REEMBEDDING_FAILED: The move to acme/nowhere failed: MODEL_NOT_FOUND: ")
    moved = shown("embeddings", "reembed", local, "--wait")
    assert (moved["state"], moved["memory_count"]) == ("REEMBEDDING_STATE_COMPLETED", moved["done_count"])
    assert shown("embeddings", "status", moved["reembedding_id"]) == moved
    assert shown("embeddings", "default", local)["is_default"]
    assert run(["embeddings", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == ["MODEL", "DIMENSION", "STATE"]


def test_memories_change_come_back_move_and_go(
    shown: Show, told: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = shown("memories", "store", "Rails are steel.", "--agent", "demo", "--user", "mona", "--key", "rails")
    memory_id = stored["memory"]["memory_id"]
    changed = shown("memories", "update", memory_id, "--content", "Rails are iron.", "--reason", "Said so.")
    assert (changed["content"], changed["revision"]) == ("Rails are iron.", "2")
    assert told("memories", "update", memory_id, "--speaker", "Bob", "--etag", "1").startswith("error: ETAG_MISMATCH: ")
    assert run(["memories", "update", memory_id]) == 2
    assert "--content" in capsys.readouterr().err
    assert shown("memories", "rollback", memory_id, "1")["content"] == "Rails are steel."
    states = shown("memories", "history", memory_id)
    assert [state["cause"] for state in states] == [
        "REVISION_CAUSE_ROLLED_BACK",
        "REVISION_CAUSE_UPDATED",
        "REVISION_CAUSE_STORED",
    ]
    assert states[1]["reason"] == "Said so."
    file = tmp_path / "memories.jsonl"
    assert run(["memories", "export", str(file), "--user", "mona", "--vectors"]) == 0
    assert capsys.readouterr().err == "exported 1\n"
    assert json.loads(file.read_text())["memory"]["memory_id"] == memory_id
    receipt = shown("memories", "erase", "mona")
    assert (receipt["memory_count"], receipt["vector_count"], receipt["revision_count"]) == ("1", "1", "2")
    assert shown("memories", "list", "--user", "mona") == []
    assert shown("memories", "import", str(file)) == {"created_count": "1"}
    assert shown("memories", "import", str(file)) == {"unchanged_count": "1"}
    assert shown("memories", "get", memory_id)["content"] == "Rails are steel."
    file.write_text("{}\nnonsense\n")
    assert run(["memories", "import", str(file)]) != 0
    assert "line 2 of" in capsys.readouterr().err
    shown("memories", "erase", "mona")


def test_memories_are_drawn_from_a_session_and_put_in_order(
    shown: Show, told: Callable[..., str], talk: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    session_id = talk("I live in Oslo and I work as a pilot.\n", "demo", "--user", "zoe")[-1].split()[-1]
    drawn = shown("memories", "extract", session_id, "--extractor", "facts-1")
    assert {result["memory"]["key"] for result in drawn["results"]} >= {"user/home", "user/occupation"}
    assert drawn["job"]["state"] == "EXTRACTION_STATE_DONE"
    job_id = drawn["job"]["job_id"]
    assert [job["job_id"] for job in shown("memories", "jobs", "--session", session_id, "--state", "done")] == [job_id]
    assert run(["memories", "extract", session_id, "--extractor", "facts-1"]) == 0
    out = capsys.readouterr().out
    assert "unchanged" in out.lower()
    assert "by facts-1, 0 refused" in out
    assert told("memories", "retry-job", session_id).startswith("error: EXTRACTION_JOB_NOT_FOUND: ")
    assert shown("memories", "retry-job", job_id)["state"] == "EXTRACTION_STATE_PENDING"
    for key in ("user/a", "user/b"):
        shown("memories", "store", "Flies at night.", "--agent", "demo", "--user", "zoe", "--key", key)
    planned = shown("memories", "consolidate", "--agent", "demo", "--user", "zoe", "--dry-run")
    assert [action["kind"] for action in planned["actions"]] == ["CONSOLIDATION_KIND_MERGE"]
    assert run(["memories", "consolidate", "--agent", "demo", "--user", "zoe"]) == 0
    assert "memories looked at" in capsys.readouterr().out
    assert "actions" not in shown("memories", "consolidate", "--agent", "demo", "--user", "zoe")
    shown("memories", "erase", "zoe")


def test_keys_and_tenants(
    shown: Show, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = shown("tenants", "create", "acme")
    assert told("tenants", "create", "acme").startswith("error: TENANT_NAME_TAKEN: ")
    assert shown("tenants", "show", "acme") == shown("tenants", "show", tenant["tenant_id"]) == tenant
    assert tenant in shown("tenants", "list", "--status", "active", "-n", "1000")
    made = shown("keys", "create", "for acme", "--tenant", "acme", "--days", "1", "--scope", "agents.*")
    assert told("keys", "create", "--tenant", "nobody") == (
        "error: TENANT_NOT_FOUND: There is no such tenant (name nobody).\n"
    )
    assert told("keys", "create", "--tenant", "acme", "--scope", "all").startswith("error: INVALID_FIELDS: ")
    monkeypatch.setenv("MINION_API_KEY", made["secret"])
    assert shown("agents", "list") == []
    assert told("sessions", "list").startswith("error: PERMISSION_MISSING: ")
    assert told("keys", "list").startswith("error: PERMISSION_MISSING: ")
    # A tenant's key is no operator's.
    monkeypatch.setenv("MINION_OPERATOR_KEY", made["secret"])
    assert told("tenants", "create", "other").startswith("error: PERMISSION_MISSING: ")
    monkeypatch.delenv("MINION_OPERATOR_KEY")
    key_id = made["api_key"]["api_key_id"]
    rotated = shown("keys", "rotate", key_id, "--overlap", "15m", "--tenant", "acme")
    assert rotated["api_key"]["scopes"] == ["agents.*"]
    assert rotated["replaced"]["expire_time"] < made["api_key"]["expire_time"]
    assert run(["keys", "rotate", key_id, "--overlap", "soon"]) == 2
    assert "is no span such as 90s" in capsys.readouterr().err
    revoked = shown("keys", "revoke", key_id, "--tenant", tenant["tenant_id"])
    assert revoked["revoke_time"]
    listed = shown("keys", "list", "--tenant", "acme")
    assert [key["api_key_id"] for key in listed] == [rotated["api_key"]["api_key_id"], key_id]
    assert run(["keys", "list", "--tenant", "acme"]) == 0
    table = capsys.readouterr().out
    assert all(key["prefix"] in table for key in listed)
    assert made["secret"] not in table
    suspended = shown("tenants", "suspend", "acme", "--reason", "unpaid")
    assert suspended["suspend_reason"] == "unpaid"
    assert [each["name"] for each in shown("tenants", "list", "--status", "suspended")] == ["acme"]
    monkeypatch.setenv("MINION_API_KEY", rotated["secret"])
    assert told("agents", "list").startswith("error: TENANT_SUSPENDED: ")
    assert "suspend_reason" not in shown("tenants", "resume", tenant["tenant_id"])
    monkeypatch.delenv("MINION_API_KEY")
    assert run(["keys", "show"]) == 0
    assert capsys.readouterr().out.startswith("mnk_")


def test_the_doctor_sees_the_running_stack(shown: Show, capsys: pytest.CaptureFixture[str]) -> None:
    del shown
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "a stack is running here" in out
    assert "with pgvector" in out
    assert "gateway 0002_" in out


def test_many_rows_come_page_by_page(shown: Show) -> None:
    for index in range(5):
        shown("memories", "store", f"Note number {index}.", "--agent", "demo", "--user", "pages", "--key", f"k{index}")
    listed = shown("memories", "list", "--user", "pages", "--limit", "3")
    assert len(listed) == 3
    assert len(shown("memories", "list", "--user", "pages", "--limit", "100")) == 5


def _audit(shown: Show, session_id: str, runs: int) -> list[dict[str, Any]]:
    """The audit follows the answers within a second or two."""

    async def poll() -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            while True:
                rows: list[dict[str, Any]] = await asyncio.to_thread(
                    shown, "activities", "list", "--session", session_id
                )
                if sum(row["kind"] == "ACTIVITY_KIND_RUN" for row in rows) == runs:
                    return rows
                await asyncio.sleep(0.1)

    return asyncio.run(poll())
