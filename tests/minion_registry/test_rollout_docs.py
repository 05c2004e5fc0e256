"""What docs/registry.md says of rollouts: its examples work, and clients that follow it draw as the gateway does."""

import hashlib
import re
from pathlib import Path

from google.protobuf import json_format
from minion.registry.v1 import rollout_service_pb2 as pb
from minion_testing.examples import as_json

from tests.minion_registry.rollouts_stage import revised, started
from tests.minion_registry.stage import Caller

_TEXT = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
_EXAMPLE = re.compile(r"^grpcurl .* -d '(.*)' localhost:50051 minion\.registry\.v1\.RolloutService/(\w+)$", re.M)
_VECTOR = re.compile(r"^\| `([^`]*)` \| `([0-9a-f-]{36})` \| `([0-9a-f]{16})` \| (\d+) \|$", re.M)


async def test_every_rpc_has_an_example_that_works(tenant: Caller) -> None:
    examples: list[tuple[str, str]] = _EXAMPLE.findall(_TEXT)
    service = pb.DESCRIPTOR.services_by_name["RolloutService"]
    assert sorted(name for _, name in examples) == sorted(method.name for method in service.methods)
    values = {"$AGENT": (await revised(tenant)).agent_id, "$OTHER": (await started(tenant)).rollout_id}
    for body, name in examples:
        filled = re.sub(r"\$[A-Z]+", lambda variable: values[variable.group()], body)
        request = json_format.Parse(as_json(filled), getattr(pb, f"{name}Request")())
        answer = await getattr(tenant.rollouts, name)(request)
        if name == "StartRollout":
            values["$ROLLOUT"] = answer.rollout.rollout_id


def test_the_vectors_are_those_of_the_hash() -> None:
    vectors: list[tuple[str, str, str, str]] = _VECTOR.findall(_TEXT)
    assert len(vectors) == 4
    for salt, session_id, drawn, remainder in vectors:
        digest = hashlib.sha256(salt.encode() + b"\0" + session_id.encode()).hexdigest()
        assert digest.startswith(drawn)
        assert int(drawn, 16) % 10_000 == int(remainder)
