"""Chats by OpenAI's protocol: OpenAI itself, or any server that speaks it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from minion_gateway.inference.domain import Completion, CompletionRequest, Delta
from minion_gateway.inference.providers.openai_connection import OpenAIConnection
from minion_gateway.inference.providers.openai_wire import StreamReader, body_of, completion_from

_PATH = "/chat/completions"
_END_SECONDS = 0.05


class OpenAIProvider:
    """A `Provider` over a connection that it shares and does not own alone: closing one closes both."""

    name = "openai"

    def __init__(self, connection: OpenAIConnection) -> None:
        self._connection = connection
        # OpenAI's newer models know the new name alone, other servers the old one.
        self._output_limit_field = "max_completion_tokens" if connection.is_openai else "max_tokens"

    async def start(self) -> None:
        """Loads the client."""
        await self._connection.start()

    async def complete(self, request: CompletionRequest) -> Completion:
        """Returns the whole answer; see `openai_faults` for what is raised."""
        body = body_of(request, stream=False, output_limit_field=self._output_limit_field)
        content = await self._connection.post(_PATH, body, model=request.model, attempt=request.attempt)
        return completion_from(request, self.name, content)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yields the answer as it comes.

        Closing the iterator, or canceling the task in it, closes the provider's connection at once. A stream that ends
        before its answer does raises Unavailable / PROVIDER_ANSWER_INVALID.
        """
        reader = StreamReader(request, self.name)
        body = body_of(request, stream=True, output_limit_field=self._output_limit_field)
        async with self._connection.open(_PATH, body, model=request.model, attempt=request.attempt) as pieces:
            async for piece in pieces:
                for delta in reader.feed(piece):
                    yield delta
                if reader.done:
                    break
            # The connection can be used again only once the protocol's own end was read.
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    async for _ in pieces:
                        pass
        yield reader.finish()

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()
