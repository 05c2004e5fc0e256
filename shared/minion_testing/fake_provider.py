"""A provider that speaks OpenAI's wire protocol, does as it is told and writes down what it was asked.

By default it echoes at once; scripted replies and faults come first, in order. It runs in process
(`async with FakeProvider() as provider`) or as a process of its own (`python -m minion_testing.fake_provider`), where
`/control` takes the same scripts as JSON.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import orjson
from aiohttp import web

from minion_testing.provider_ledger import Asked, Ledger, public
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from minion_testing.provider_wire import completion, embeddings, events, last_user_text

_EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
_DONE = b"data: [DONE]\n\n"
_MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small")
_DIMENSIONS = {"text-embedding-3-large": 3072}


class FakeProvider:
    """The server. `address` is `http://127.0.0.1:<port>`; `base_url` is what `OPENAI_BASE_URL` wants.

    With `api_key` any other key is refused by 401. `default` answers what no script claims.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        ledger: Path | None = None,
        default: Reply | None = None,
    ) -> None:
        self.ledger = Ledger(ledger)
        self._host, self._port = host, port
        self._authorization = f"Bearer {api_key}" if api_key else None
        self._default = default or Reply()
        self._scripts: list[Script] = []
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    @property
    def base_url(self) -> str:
        """The root of the OpenAI protocol."""
        return f"{self.address}/v1"

    async def start(self) -> None:
        """Listens; port 0 takes a free one."""
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/embeddings", self._embeddings)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/control/script", self._control_script)
        application.router.add_post("/control/release", self._control_release)
        application.router.add_post("/control/reset", self._control_reset)
        application.router.add_get("/control/ledger", self._control_ledger)
        # A handler is cancelled when its client goes: that is how the ledger knows.
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening and cuts what is open."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def push(self, *scripts: Script | Reply | Fault) -> None:
        """Adds what the next requests get, in order; a bare reply or fault serves one request."""
        self._scripts += [script if isinstance(script, Script) else Script(script) for script in scripts]

    def release(self) -> None:
        """Lets every stalled request go on."""
        self._released.set()
        self._released = asyncio.Event()

    def reset(self) -> None:
        """Forgets scripts and ledger."""
        self._scripts.clear()
        self.ledger.asked.clear()

    def _next(self, text: str, *, after_tools: bool = False) -> Reply | Fault:
        for position, script in enumerate(self._scripts):
            if script.fits(text, after_tools=after_tools):
                if script.times is not None:
                    left = replace(script, times=script.times - 1)
                    self._scripts[position : position + 1] = [left] if left.times else []
                return script.action
        return self._default

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = orjson.loads(await request.read())
        asked = self.ledger.open(request.path, request.headers, body)
        try:
            if refusal := self._refusal(asked):
                return refusal
            messages: Sequence[Mapping[str, Any]] = body.get("messages") or ({},)
            text = last_user_text(messages)
            action = self._next(text, after_tools=messages[-1].get("role") == "tool")
            if isinstance(action, Fault) and (response := await self._fault(asked, action)):
                return response
            reply = action if isinstance(action, Reply) else self._default
            if reply.first_byte_seconds:
                await asyncio.sleep(reply.first_byte_seconds)
            if asked.streamed:
                fault = action if isinstance(action, Fault) else None
                return await self._stream(request, asked, reply.filled(text, body), fault)
            answer = orjson.dumps(completion(asked, reply.filled(text, body)))
            self.ledger.close(asked, "completed", 200)
            return web.Response(body=answer, content_type="application/json")
        except (asyncio.CancelledError, ConnectionResetError):
            self.ledger.close(asked, "client_gone", asked.status)
            raise

    def _refusal(self, asked: Asked) -> web.Response | None:
        if self._authorization is None or asked.authorization == self._authorization:
            return None
        return self._error(asked, 401, "Incorrect API key provided.", "invalid_api_key")

    def _error(
        self, asked: Asked, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        self.ledger.close(asked, "fault", status)
        body = orjson.dumps({"error": {"message": message, "type": "fake_error", "param": None, "code": code}})
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    async def _fault(self, asked: Asked, fault: Fault) -> web.Response | None:  # noqa: PLR0912 - a case a fault
        """Answers with the fault; None where the fault comes later, in the stream."""
        match fault.kind:
            case FaultKind.RATE_LIMITED:
                headers = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds else None
                return self._error(asked, 429, "Rate limit reached.", "rate_limit_exceeded", headers)
            case FaultKind.QUOTA_EXHAUSTED:
                return self._error(asked, 429, "You exceeded your current quota.", "insufficient_quota")
            case FaultKind.SERVER_ERROR:
                return self._error(asked, fault.status or 500, "The server had an error.", "server_error")
            case FaultKind.KEY_REFUSED:
                return self._error(asked, 401, "Incorrect API key provided.", "invalid_api_key")
            case FaultKind.CONTEXT_TOO_LONG:
                message = "This model's maximum context length is 8192 tokens."
                return self._error(asked, 400, message, "context_length_exceeded")
            case FaultKind.MODEL_UNKNOWN:
                return self._error(asked, 404, "The model does not exist.", "model_not_found")
            case FaultKind.SCHEMA_REFUSED:
                message = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
                return self._error(asked, 400, message, "invalid_request_error")
            case FaultKind.REDIRECTED:
                return self._error(asked, 307, "Ask there.", "moved", {"Location": f"{self.address}{asked.path}"})
            case FaultKind.STALL:
                released = self._released
                if fault.seconds:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(released.wait(), fault.seconds)
                else:
                    await released.wait()
                return None
            case _ if not asked.streamed:
                # A whole answer is cut or spoilt in its middle.
                self.ledger.close(asked, "fault", 200)
                return web.Response(body=b'{"choices": [{"mess', content_type="application/json")
            case _:
                return None

    async def _stream(
        self, request: web.Request, asked: Asked, reply: Reply, fault: Fault | None
    ) -> web.StreamResponse:
        # Taken before anything is sent: whoever reads the first words may release it before it stalls.
        released = self._released
        response = web.StreamResponse(headers=_EVENT_STREAM)
        await response.prepare(request)
        asked.status = 200
        include_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
        # A stall came before the first byte and is over.
        ending = fault if fault is not None and fault.kind is not FaultKind.STALL else None
        stream = events(asked, reply, include_usage=include_usage)
        if ending is None and not reply.chunk_seconds:
            # The benchmark's path: each event its own write, as a provider's tokens come.
            for event in stream:
                await response.write(event)
            asked.chunks_sent = len(stream)
        else:
            for position, event in enumerate(stream):
                if ending is not None and position == ending.after_chunks:
                    return await self._break(request, response, asked, ending, released)
                await response.write(event)
                asked.chunks_sent += 1
                await asyncio.sleep(reply.chunk_seconds)
        await response.write(_DONE)
        await response.write_eof()
        self.ledger.close(asked, "completed", 200)
        return response

    async def _break(
        self,
        request: web.Request,
        response: web.StreamResponse,
        asked: Asked,
        fault: Fault,
        released: asyncio.Event,
    ) -> web.StreamResponse:
        match fault.kind:
            case FaultKind.CUT:
                self.ledger.close(asked, "fault", 200)
                if request.transport is not None:
                    # Closed, not reset: a reset would race what was sent before it.
                    request.transport.abort()
            case FaultKind.MALFORMED:
                await response.write(b'data: {"choices": [{"delta": {"cont\n\n')
                await response.write(_DONE)
                self.ledger.close(asked, "fault", 200)
            case FaultKind.STALL_MIDWAY:
                await released.wait()
                self.ledger.close(asked, "fault", 200)
            case FaultKind.ERROR_MIDWAY:
                await response.write(b'data: {"error": {"message": "It broke.", "code": "server_error"}}\n\n')
                self.ledger.close(asked, "fault", 200)
            case _:
                # UNFINISHED: the stream ends as if it were whole, but says neither why nor that it is done.
                self.ledger.close(asked, "fault", 200)
        with suppress(ConnectionResetError):
            await response.write_eof()
        return response

    async def _embeddings(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = orjson.loads(await request.read())
        asked = self.ledger.open(request.path, request.headers, body)
        try:
            if refusal := self._refusal(asked):
                return refusal
            texts = [body["input"]] if isinstance(body["input"], str) else list(body["input"])
            # A script is for a request that has its text among others as well.
            action = self._next("\n".join(texts))
            if isinstance(action, Fault) and (response := await self._fault(asked, action)):
                return response
        except (asyncio.CancelledError, ConnectionResetError):
            self.ledger.close(asked, "client_gone", asked.status)
            raise
        answer = embeddings(
            asked.model,
            texts,
            dimensions=int(body.get("dimensions") or _DIMENSIONS.get(asked.model, 1536)),
            base64=body.get("encoding_format") == "base64",
        )
        self.ledger.close(asked, "completed", 200)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _models(self, request: web.Request) -> web.Response:
        # Asked for nothing that costs, so the ledger knows nothing of it.
        if self._authorization is not None and request.headers.get("Authorization") != self._authorization:
            return web.json_response({"error": {"message": "Incorrect API key provided."}}, status=401)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in _MODELS]
        return web.json_response({"object": "list", "data": data})

    async def _control_script(self, request: web.Request) -> web.Response:
        self.push(*(Script.from_json(item) for item in orjson.loads(await request.read())))
        return web.json_response({"waiting": len(self._scripts)})

    async def _control_release(self, _: web.Request) -> web.Response:
        self.release()
        return web.json_response({})

    async def _control_reset(self, _: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})

    async def _control_ledger(self, _: web.Request) -> web.Response:
        return web.Response(
            body=orjson.dumps([public(asked) for asked in self.ledger.asked]), content_type="application/json"
        )


async def _serve(arguments: argparse.Namespace) -> None:
    provider = FakeProvider(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        ledger=arguments.ledger,
        default=Reply(text=arguments.text, chunks=arguments.chunks),
    )
    async with provider:
        sys.stdout.write(f"{provider.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serves until it is ended; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m minion_testing.fake_provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", help="refuse any other key by 401")
    parser.add_argument("--ledger", type=Path, help="append each request and its end to this file, synced")
    parser.add_argument("--text", help="the default answer; without it the last user message is echoed")
    parser.add_argument("--chunks", type=int, help="pieces that a streamed answer comes in; without it one a word")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
