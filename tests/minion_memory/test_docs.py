"""The examples of docs/memory.md work, one for each RPC, in the order in which they stand there."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest_asyncio
from google.protobuf import json_format
from minion.memory.v1 import embedding_model_service_pb2 as models_pb
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.examples import as_json
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_memory.extraction_stage import Tenant, house
from tests.minion_memory.models_stage import choosing, operating

_EXAMPLE = re.compile(r"^grpcurl -plaintext -d '(.*)' localhost:50053 minion\.memory\.v1\.MemoryService/(\w+)$", re.M)


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[Tenant]:
    """The service among those that it asks, with the local models."""
    async with house(postgres, model_cache, follow_sessions=False) as running, running.tenant() as calling:
        yield calling


async def test_every_rpc_has_an_example_that_works(tenant: Tenant) -> None:
    memories = tenant.memories
    text = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    examples: list[tuple[str, str]] = _EXAMPLE.findall(text)
    service = pb.DESCRIPTOR.services_by_name["MemoryService"]
    assert sorted(name for _, name in examples) == sorted(method.name for method in service.methods)
    session_id = await tenant.session("My name is Ada.", user_id="ada")
    values = {"$AGENT": str(uuid7()), "$MEMORY": str(uuid7()), "$SESSION": session_id}
    answers = {}
    for body, name in examples:
        filled = re.sub(r"\$[A-Z]+", lambda variable: values[variable.group()], body)
        request = json_format.Parse(as_json(filled), getattr(pb, f"{name}Request")())
        method = service.methods_by_name[name]
        if method.client_streaming:
            answers[name] = await getattr(memories, name)(iter([request]))
        elif method.server_streaming:
            answers[name] = [part async for part in getattr(memories, name)(request)]
        else:
            answers[name] = await getattr(memories, name)(request)
        if name == "ExtractMemories":
            values["$JOB"] = answers[name].job.job_id
    assert [hit.memory.memory_id for hit in answers["SearchMemories"].hits] == [values["$MEMORY"]]
    assert [memory.memory_id for memory in answers["ListMemories"].memories] == [values["$MEMORY"]]


async def test_every_rpc_on_models_has_an_example_that_works(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    examples = re.findall(_EXAMPLE.pattern.replace("MemoryService", "EmbeddingModelService"), text, re.M)
    service = models_pb.DESCRIPTOR.services_by_name["EmbeddingModelService"]
    assert sorted(name for _, name in examples) == sorted(method.name for method in service.methods)
    begun = ""
    async with (
        serve("memory", await database_factory()) as served,
        choosing(served, uuid4()) as models,
        operating(served) as operator,
    ):
        for body, name in examples:
            request = json_format.Parse(body.replace("$REEMBEDDING", begun), getattr(models_pb, f"{name}Request")())
            stub = operator if name == "RegisterEmbeddingModel" else models
            answer = await getattr(stub, name)(request)
            if name == "ReembedMemories":
                begun = answer.reembedding.reembedding_id
