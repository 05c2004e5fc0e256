"""The examples of docs/session.md work, one for each RPC, in the order in which they stand there."""

import re
from pathlib import Path

from google.protobuf import json_format
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.examples import as_json

from tests.minion_session.made import new_id
from tests.minion_session.stage import Stub

_EXAMPLE = re.compile(r"^grpcurl -plaintext -d '(.*)' localhost:50052 minion\.session\.v1\.SessionService/(\w+)$", re.M)


async def test_every_rpc_has_an_example_that_works(session: Stub) -> None:
    text = (Path(__file__).parents[2] / "docs" / "session.md").read_text()
    examples: list[tuple[str, str]] = _EXAMPLE.findall(text)
    service = pb.DESCRIPTOR.services_by_name["SessionService"]
    assert sorted(name for _, name in examples) == sorted(method.name for method in service.methods)
    values = {"$SESSION": new_id(), "$AGENT": new_id(), "$RUN": new_id()}
    for body, name in examples:
        filled = re.sub(r"\$[A-Z]+", lambda variable: values[variable.group()], body)
        request = json_format.Parse(as_json(filled), getattr(pb, f"{name}Request")())
        call = getattr(session, name)(request)
        if not service.methods_by_name[name].server_streaming:
            await call
            continue
        # A watch has no end: its first word is enough.
        assert await call.read()
        call.cancel()
