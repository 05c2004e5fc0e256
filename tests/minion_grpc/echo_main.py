"""The echo service as a process: `python -m tests.minion_grpc.echo_main`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from minion_auth import Authenticator, ServiceTokens
from minion_grpc import Server, ServerSettings, run
from minion_telemetry import Telemetry
from pydantic import Field

from tests.minion_grpc.echo import DESCRIPTOR, RULES, EchoServicer, add_echo_servicer_to_server, repeat
from tests.minion_grpc.stage import SERVICE_KEY, Keys


class EchoSettings(ServerSettings):
    """The echo service of tests."""

    service: ClassVar[str] = "echo"
    pause_seconds: float = Field(default=0.0, description="How long an answer takes.")


@asynccontextmanager
async def compose(settings: EchoSettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service."""

    async def behave(request: Any, context: Any) -> str:
        await asyncio.sleep(settings.pause_seconds)
        return f"{await repeat(request, context)} from {os.getpid()}"

    authenticator = Authenticator(settings, Keys(), ServiceTokens(SERVICE_KEY, "echo"), rules=RULES)
    server = Server("echo", settings, telemetry, authenticator)
    server.add(add_echo_servicer_to_server, EchoServicer(behave), DESCRIPTOR)
    yield server


if __name__ == "__main__":
    run(EchoSettings, compose)
