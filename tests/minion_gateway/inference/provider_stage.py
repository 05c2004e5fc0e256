"""What tests of a provider stand on: the fake one at the wire, and requests to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Delta, Finished, Role
from minion_gateway.inference.providers.openai import OpenAIProvider
from minion_gateway.inference.providers.openai_connection import ConnectionOptions, OpenAIConnection
from minion_testing.fake_provider import FakeProvider
from minion_testing.fault_proxy import FaultProxy

API_KEY = "the key of the fake provider"


def asking(text: str, **values: Any) -> CompletionRequest:
    """Makes a request with one user's message."""
    return CompletionRequest(**{"model": "gpt-4o-mini", "messages": (ChatMessage(Role.USER, text),), **values})


@asynccontextmanager
async def provider_at(base_url: str, **options: Any) -> AsyncIterator[OpenAIProvider]:
    """Opens our provider on a server."""
    provider = OpenAIProvider(
        OpenAIConnection(ConnectionOptions(**{"api_key": API_KEY, "base_url": base_url, **options}))
    )
    try:
        yield provider
    finally:
        await provider.close()


async def drained(deltas: AsyncIterator[Delta]) -> list[Delta]:
    """Reads a stream to its end."""
    return [delta async for delta in deltas]


async def collect(deltas: AsyncIterator[Delta], seen: list[Delta]) -> None:
    """Reads a stream into a list, which keeps what came before a break."""
    async for delta in deltas:
        seen.append(delta)  # noqa: PERF401 - a comprehension keeps nothing


@asynccontextmanager
async def proxied(fake: FakeProvider) -> AsyncIterator[tuple[FaultProxy, OpenAIProvider]]:
    """Opens our provider on the fake one with a fault proxy between."""
    async with (
        FaultProxy("127.0.0.1", int(fake.address.rpartition(":")[2])) as proxy,
        provider_at(f"http://{proxy.address}/v1") as provider,
    ):
        yield proxy, provider


def text_of(deltas: list[Delta]) -> str:
    """Gives the text that a finished stream ends with."""
    assert isinstance(deltas[-1], Finished)
    return deltas[-1].completion.text
