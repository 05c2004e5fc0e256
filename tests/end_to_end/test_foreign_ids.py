"""An id of another tenant reads exactly as one that nobody has, in every RPC that takes one."""

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from minion_auth import RULES, CallerKind
from minion_grpc import peer_errors
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Stack, serve_all
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.architecture.contract import methods

_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_SCHEMA = {"type": "object"}

# The least request with which each RPC looks for what an id names; ids are filled in by their names.
_BY_ID: Final[dict[str, dict[str, Any]]] = {
    "activity.v1.ActivityService.GetActivity": {"activity_id": "$activity"},
    "gateway.v1.RunService.CreateRun": {"session_id": "$session", "text": "hello"},
    "gateway.v1.RunService.StreamRun": {"session_id": "$session", "text": "hello"},
    "gateway.v1.RunService.GetRun": {"run_id": "$run"},
    "gateway.v1.RunService.ListRunSteps": {"run_id": "$run"},
    "gateway.v1.RunService.WatchRun": {"run_id": "$run"},
    "memory.v1.EmbeddingModelService.GetReembedding": {"reembedding_id": "$reembedding"},
    "memory.v1.MemoryService.GetMemory": {"memory_id": "$memory"},
    "memory.v1.MemoryService.GetMemoryByKey": {"agent_id": "$agent", "user_id": "ann", "key": "tea"},
    "memory.v1.MemoryService.UpdateMemory": {
        "memory": {"memory_id": "$memory", "content": "x"},
        "update_mask": "content",
    },
    "memory.v1.MemoryService.DeleteMemory": {"memory_id": "$memory"},
    "memory.v1.MemoryService.ExtractMemories": {"session_id": "$session"},
    "memory.v1.MemoryService.RetryExtractionJob": {"job_id": "$job"},
    "memory.v1.MemoryService.ListMemoryRevisions": {"memory_id": "$memory"},
    "memory.v1.MemoryService.RollbackMemory": {"memory_id": "$memory", "revision": 1},
    "registry.v1.AgentService.GetAgent": {"agent_id": "$agent"},
    "registry.v1.AgentService.GetAgentCard": {"agent_id": "$agent"},
    "registry.v1.AgentService.UpdateAgent": {
        "agent": {"agent_id": "$agent", "instructions": "x"},
        "update_mask": "instructions",
    },
    "registry.v1.AgentService.RollbackAgent": {"agent_id": "$agent", "revision": 1},
    "registry.v1.AgentService.DeleteAgent": {"agent_id": "$agent"},
    "registry.v1.AgentService.ActivateAgent": {"agent_id": "$agent"},
    "registry.v1.AgentService.DeactivateAgent": {"agent_id": "$agent"},
    "registry.v1.AgentService.ArchiveAgent": {"agent_id": "$agent"},
    "registry.v1.AgentService.ListAgentRevisions": {"agent_id": "$agent"},
    "registry.v1.AgentService.BindTool": {"agent_id": "$agent", "tool_id": "$tool"},
    "registry.v1.AgentService.UnbindTool": {"agent_id": "$agent", "tool_id": "$tool"},
    "registry.v1.AgentService.ListAgentTools": {"agent_id": "$agent"},
    "registry.v1.AgentService.ResolveAgent": {"agent_id": "$agent"},
    "registry.v1.ApiKeyService.RevokeApiKey": {"api_key_id": "$api_key"},
    "registry.v1.ApiKeyService.RotateApiKey": {"api_key_id": "$api_key"},
    "registry.v1.RolloutService.StartRollout": {
        "rollout": {
            "agent_id": "$agent",
            "candidate_revision": 1,
            "steps": [{"basis_points": 1000}],
            "guardrails": {"max_error_rate": 0.5},
        }
    },
    "registry.v1.RolloutService.GetRollout": {"rollout_id": "$rollout"},
    "registry.v1.RolloutService.AdvanceRollout": {"rollout_id": "$rollout"},
    "registry.v1.RolloutService.PromoteRollout": {"rollout_id": "$rollout"},
    "registry.v1.RolloutService.AbortRollout": {"rollout_id": "$rollout", "reason": "x"},
    "registry.v1.ToolService.GetTool": {"tool_id": "$tool"},
    "registry.v1.ToolService.UpdateTool": {
        "tool": {"tool_id": "$tool", "description": "x"},
        "update_mask": "description",
    },
    "registry.v1.ToolService.DeprecateTool": {"tool_id": "$tool"},
    "registry.v1.ToolService.RetireTool": {"tool_id": "$tool"},
    "registry.v1.ToolService.ListToolVersions": {"tool_id": "$tool"},
    "registry.v1.ToolService.ValidateToolArguments": {"tool_id": "$tool"},
    "session.v1.BlobService.GetBlob": {"blob_id": "$blob", "session_id": "$session"},
    "session.v1.SessionService.GetSession": {"session_id": "$session"},
    "session.v1.SessionService.UpdateSession": {
        "session": {"session_id": "$session", "display_name": "x"},
        "update_mask": "displayName",
    },
    "session.v1.SessionService.ExtendSession": {"session_id": "$session", "ttl": "60s"},
    "session.v1.SessionService.CloseSession": {"session_id": "$session"},
    "session.v1.SessionService.ArchiveSession": {"session_id": "$session"},
    "session.v1.SessionService.DeleteSession": {"session_id": "$session"},
    "session.v1.SessionService.ForkSession": {"session_id": "$session", "at_sequence": 1},
    "session.v1.SessionService.AppendMessages": {
        "session_id": "$session",
        "messages": [{"role": "MESSAGE_ROLE_USER", "parts": [{"text": "x"}]}],
    },
    "session.v1.SessionService.ListMessages": {"session_id": "$session"},
    "session.v1.SessionService.WatchMessages": {"session_id": "$session"},
    "session.v1.SessionService.GetContext": {"session_id": "$session"},
    "session.v1.SessionService.SaveSummary": {
        "session_id": "$session",
        "first_sequence": 1,
        "last_sequence": 1,
        "text": "x",
        "token_count": 1,
        "model": "x/y",
    },
    "session.v1.SessionService.ListSummaries": {"session_id": "$session"},
    "session.v1.SessionService.GetWorkspace": {"session_id": "$session"},
    "session.v1.SessionService.SetWorkspaceEntries": {"session_id": "$session", "changes": [{"key": "a", "value": 1}]},
    "session.v1.SessionService.DeleteWorkspaceEntries": {"session_id": "$session", "keys": ["a"]},
}
# RPCs in which an id only narrows what is listed or summed: a foreign one finds nothing, as an absent one.
_BY_FILTER: Final[dict[str, dict[str, Any]]] = {
    "activity.v1.ActivityService.ListActivities": {"agent_id": "$agent"},
    "activity.v1.ActivityService.GetAgentStats": {"agent_id": "$agent"},
    "gateway.v1.RunService.ListRuns": {"session_id": "$session"},
    "memory.v1.MemoryService.ListMemories": {"agent_id": "$agent", "user_id": "ann"},
    "memory.v1.MemoryService.SearchMemories": {"agent_id": "$agent", "user_id": "ann", "query": "tea"},
    "memory.v1.MemoryService.ListExtractionJobs": {"session_id": "$session"},
    "memory.v1.MemoryService.ConsolidateMemories": {"agent_id": "$agent", "user_id": "ann", "dry_run": True},
    "memory.v1.MemoryService.ExportMemories": {"agent_id": "$agent", "user_id": "ann"},
    "registry.v1.RolloutService.ListRollouts": {"agent_id": "$agent"},
    "session.v1.SessionService.ListSessions": {"agent_id": "$agent"},
}
# Those that name nothing that is there already.
_NAMELESS: Final = {
    *("RecordActivities", "Complete", "StreamComplete", "Embed", "ListModels", "ListEmbeddingModels", "StoreMemories"),
    *("SetDefaultEmbeddingModel", "ReembedMemories", "EraseSubject", "ImportMemories", "CreateAgent", "ListAgents"),
    *("SearchAgents", "WatchAgents", "CreateApiKey", "ListApiKeys", "RegisterTool", "ListTools", "CreateSession"),
    *("WatchSessions", "CleanupExpiredSessions"),
    # A client stream: its first message names the session, tests/minion_session/test_blobs.py has a foreign one.
    "PutBlob",
}


# What the other tenant has nothing of here, and why; the tests that have a foreign one are named.
_UNMADE: Final = {
    "reembedding": "a second model is the whole deployment's: tests/minion_memory/reembedding/test_reembedding.py",
}


class Neighbours:
    """A tenant that calls, and the ids of what another one has."""

    def __init__(self, stack: Stack, api_key: str, their_key: str, theirs: dict[str, str]) -> None:
        self.stack = stack
        self.api_key = api_key
        self.their_key = their_key
        self.theirs = theirs


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def neighbours(postgres: ClonedDatabase) -> AsyncIterator[Neighbours]:
    """All five services, one tenant that has something of everything, and one that has nothing."""
    async with serve_all(postgres) as stack:
        mine, other = [await new_tenant(stack["registry"]) for _ in range(2)]
        async with _Caller(stack, other.api_key) as theirs:
            yield Neighbours(
                stack, mine.api_key, other.api_key, {**await _everything(theirs), "api_key": other.api_key_id}
            )


async def _everything(caller: "_Caller") -> dict[str, str]:
    """Makes one of everything; returns the ids."""
    agent = {"name": "a", "behavior_type": "tool_use", "llm": {"model": "local/stand-in"}}
    made = await caller.ask("registry.v1.AgentService.CreateAgent", {"agent": agent})
    agent_id = made["agent"]["agent_id"]
    tool = {
        "name": "t",
        "description": "d",
        "input_schema": _SCHEMA,
        "transport": "TOOL_TRANSPORT_BUILTIN",
        "builtin": "clock",
        "effect": "TOOL_EFFECT_READ_ONLY",
    }
    tool_id = (await caller.ask("registry.v1.ToolService.RegisterTool", {"tool": tool}))["tool"]["tool_id"]
    await caller.ask("registry.v1.AgentService.BindTool", {"agent_id": agent_id, "tool_id": tool_id})
    await caller.ask("registry.v1.AgentService.ActivateAgent", {"agent_id": agent_id})
    candidate = {"agent": {"agent_id": agent_id, "instructions": "x"}, "update_mask": "instructions", "stage": True}
    staged = await caller.ask("registry.v1.AgentService.UpdateAgent", candidate)
    rollout = {
        "agent_id": agent_id,
        "candidate_revision": staged["agent"]["revision"],
        "steps": [{"basis_points": 1000}],
        "guardrails": {"max_error_rate": 0.5},
    }
    begun = await caller.ask("registry.v1.RolloutService.StartRollout", {"rollout": rollout})
    opened = {"agent_id": agent_id, "user_id": "ann"}
    session_id = (await caller.ask("session.v1.SessionService.CreateSession", opened))["session"]["session_id"]
    memory = {"agent_id": agent_id, "user_id": "ann", "key": "tea", "type": "MEMORY_TYPE_FACT", "content": "Likes tea."}
    stored = await caller.ask("memory.v1.MemoryService.StoreMemories", {"memories": [{"memory": memory}]})
    run = await caller.ask("gateway.v1.RunService.CreateRun", {"session_id": session_id, "text": "hello"})
    blob = await caller.put(
        "session.v1.BlobService.PutBlob",
        {"header": {"session_id": session_id, "media_type": "text/plain"}},
        {"chunk": base64.b64encode(b"x").decode()},
    )
    extracted = await caller.ask("memory.v1.MemoryService.ExtractMemories", {"session_id": session_id})
    activity_id = str(uuid7())
    activity = {
        "activity_id": activity_id,
        "kind": "ACTIVITY_KIND_CUSTOM",
        "status": "ACTIVITY_STATUS_SUCCEEDED",
        "agent_id": agent_id,
        "start_time": "2026-01-01T00:00:00Z",
    }
    await caller.ask("activity.v1.ActivityService.RecordActivities", {"activities": [activity]})
    return {
        "agent": agent_id,
        "tool": tool_id,
        "session": session_id,
        "memory": stored["results"][0]["memory"]["memory_id"],
        "run": run["run"]["run_id"],
        "activity": activity_id,
        "rollout": begun["rollout"]["rollout_id"],
        "blob": blob["blob"]["blob_id"],
        "job": extracted["job"]["job_id"],
    }


def _called() -> list[str]:
    return [
        method.full_name.removeprefix("minion.")
        for method in methods()
        if CallerKind.TENANT in RULES[f"/{method.containing_service.full_name}/{method.name}"].callers
        and method.name != "CheckGate"
    ]


def test_every_rpc_of_tenants_is_looked_at() -> None:
    left = {name for name in _called() if name.rpartition(".")[2] not in _NAMELESS}
    assert left == {*_BY_ID, *_BY_FILTER}


async def test_the_other_tenant_has_something_of_everything(neighbours: Neighbours) -> None:
    used = set(re.findall(r'"\$(\w+)"', json.dumps([_BY_ID, _BY_FILTER])))
    assert used - set(neighbours.theirs) == set(_UNMADE)
    # What it has, it finds: else nothing would tell a foreign id from an absent one.
    found = {
        "registry.v1.RolloutService.GetRollout",
        "session.v1.BlobService.GetBlob",
        "session.v1.SessionService.GetSession",
        "registry.v1.ToolService.GetTool",
        "memory.v1.MemoryService.GetMemory",
        "gateway.v1.RunService.GetRun",
    }
    async with _Caller(neighbours.stack, neighbours.their_key) as owner:
        for name in sorted(found):
            code, said = await owner.told(name, _filled(_BY_ID[name], neighbours.theirs), {})
            assert code is grpc.StatusCode.OK, (name, said)


async def test_a_foreign_tool_is_bound_to_nobodys_agent(neighbours: Neighbours) -> None:
    name = "registry.v1.AgentService.BindTool"
    async with _Caller(neighbours.stack, neighbours.api_key) as caller:
        agent = {"agent": {"name": f"a-{uuid7().hex[:12]}", "behavior_type": "tool_use"}}
        mine = (await caller.ask("registry.v1.AgentService.CreateAgent", agent))["agent"]["agent_id"]
        told = [
            await caller.told(name, {"agent_id": mine, "tool_id": tool_id}, {"tool": tool_id})
            for tool_id in (str(uuid7()), neighbours.theirs["tool"])
        ]
        assert told[0] == told[1]
        assert told[0][0] is _NOT_FOUND
        assert "TOOL_NOT_FOUND" in told[0][1]


@pytest.mark.parametrize("name", [*_BY_ID, *_BY_FILTER])
async def test_a_foreign_id_reads_as_an_absent_one(neighbours: Neighbours, name: str) -> None:
    request = {**_BY_ID, **_BY_FILTER}[name]
    async with _Caller(neighbours.stack, neighbours.api_key) as caller:
        nobodys = {kind: str(uuid7()) for kind in (*neighbours.theirs, *_UNMADE)}
        absent = await caller.told(name, _filled(request, nobodys), nobodys)
        foreign = {**nobodys, **neighbours.theirs}
        assert await caller.told(name, _filled(request, foreign), foreign) == absent
        if name in _BY_ID:
            assert absent[0] is _NOT_FOUND, absent


def _filled(request: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(request)
    for kind, value in ids.items():
        text = text.replace(f'"${kind}"', f'"{value}"')
    filled: dict[str, Any] = json.loads(text)
    return filled


class _Caller:
    """Calls any RPC by its name, with JSON."""

    def __init__(self, stack: Stack, api_key: str) -> None:
        self._stack = stack
        self._metadata = [("authorization", f"Bearer {api_key}")]
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._methods = {method.full_name.removeprefix("minion."): method for method in methods()}

    async def __aenter__(self) -> "_Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def ask(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Calls a unary RPC and returns its answer."""
        answer: dict[str, Any] = json_format.MessageToDict(
            await self._answer(self._methods[name], request), preserving_proto_field_name=True
        )
        return answer

    async def put(self, name: str, *requests: dict[str, Any]) -> dict[str, Any]:
        """Calls an RPC that is sent a stream and returns its answer."""
        method = self._methods[name]
        kind = message_factory.GetMessageClass(method.input_type)
        answer = await self._channel(method).stream_unary(_path(method))(
            iter([json_format.ParseDict(request, kind()).SerializeToString() for request in requests]),
            metadata=self._metadata,
            timeout=60,
        )
        read = message_factory.GetMessageClass(method.output_type).FromString(answer)
        given: dict[str, Any] = json_format.MessageToDict(read, preserving_proto_field_name=True)
        return given

    async def told(self, name: str, request: dict[str, Any], ids: dict[str, str]) -> tuple[grpc.StatusCode, str]:
        """Returns all that a caller is told, the ids that it asked for left out."""
        try:
            answer = await self._answer(self._methods[name], request)
        except grpc.aio.AioRpcError as error:
            status = peer_errors.details_of(error)
            code, said = error.code(), str(status.details if status else "") + (error.details() or "")
        else:
            code, said = grpc.StatusCode.OK, json_format.MessageToJson(answer) if answer is not None else ""
        for kind, value in ids.items():
            said = said.replace(value, f"${kind}")
        return code, said

    async def _answer(self, method: MethodDescriptor, request: dict[str, Any]) -> Any:
        channel, path = self._channel(method), _path(method)
        sent = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
        answer = message_factory.GetMessageClass(method.output_type)
        if not method.server_streaming:
            return answer.FromString(
                await channel.unary_unary(path)(sent.SerializeToString(), metadata=self._metadata, timeout=60)
            )
        call = channel.unary_stream(path)(sent.SerializeToString(), metadata=self._metadata, timeout=60)
        try:
            first = await call.read()
            return answer.FromString(first) if first is not grpc.aio.EOF else None
        finally:
            call.cancel()

    def _channel(self, method: MethodDescriptor) -> Any:
        service = method.full_name.split(".")[1]
        if service not in self._channels:
            self._channels[service] = grpc.aio.insecure_channel(self._stack[service].address)
        return self._channels[service]


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
