"""The examples of docs/memory.md work, one for each RPC, in the order in which they stand there."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from google.protobuf import json_format
from minion.memory.v1 import embedding_model_service_pb2 as models_pb
from minion.memory.v1 import memory_service_pb2 as pb
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from uuid_utils.compat import uuid7

from tests.minion_memory.gateway_stage import inference
from tests.minion_memory.models_stage import choosing, operating
from tests.minion_memory.stage import Stub, calling

_EXAMPLE = re.compile(r"^grpcurl -plaintext -d '(.*)' localhost:50053 minion\.memory\.v1\.MemoryService/(\w+)$", re.M)


@pytest_asyncio.fixture(loop_scope="session")
async def memories(
    postgres: ClonedDatabase, tenant_id: UUID, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stub]:
    """The service with a gateway that embeds by the local model."""
    async with (
        inference(model_cache=tmp_path_factory.mktemp("models")) as gateway,
        serve("memory", postgres, gateway_address=gateway.address) as served,
        calling(served, tenant_id) as stub,
    ):
        yield stub


async def test_every_rpc_has_an_example_that_works(memories: Stub) -> None:
    text = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    examples: list[tuple[str, str]] = _EXAMPLE.findall(text)
    service = pb.DESCRIPTOR.services_by_name["MemoryService"]
    assert sorted(name for _, name in examples) == sorted(method.name for method in service.methods)
    values = {"$AGENT": str(uuid7()), "$MEMORY": str(uuid7())}
    answers = {}
    for body, name in examples:
        filled = re.sub(r"\$[A-Z]+", lambda variable: values[variable.group()], body)
        request = json_format.Parse(filled, getattr(pb, f"{name}Request")())
        method = service.methods_by_name[name]
        if method.client_streaming:
            answers[name] = await getattr(memories, name)(iter([request]))
        elif method.server_streaming:
            answers[name] = [part async for part in getattr(memories, name)(request)]
        else:
            answers[name] = await getattr(memories, name)(request)
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
