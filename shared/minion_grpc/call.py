"""How one RPC method is served: trace, identity, deadline, handler, error table, metrics, one log line.

Made once a method, so that a call finds its rule, its metrics and its names ready. gRPC runs each call in a task of its
own: what is set in context variables here ends with the call, and needs no resetting.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from time import perf_counter
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from minion_auth import Authenticator, CallerKind
from minion_auth import identity as identities
from minion_errors import InvalidArgument, MinionError, ResourceExhausted, Unavailable, Unimplemented
from minion_telemetry import PlainLog, Telemetry, attributes, bind_fields, mask_principal
from opentelemetry import context as trace_context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context

from minion_grpc import deadline, error_table, peer_errors, propagation
from minion_grpc.metrics import MethodMetrics

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]

_OK = grpc.StatusCode.OK
# Codes after which the server's span is marked as failed: the semantic conventions' for gRPC servers, and CANCELLED,
# which nobody else would tell apart from a call still running.
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.CANCELLED,
    }
)

_STOPPING = "The service is stopping; watch another replica."


class Refused:
    """Stands for a request that couldn't be read, until there is a caller to tell."""

    __slots__ = ("error",)

    def __init__(self, error: MinionError) -> None:
        self.error = error


class Surroundings:
    """What the methods of one server share."""

    __slots__ = (
        "authenticator",
        "domain",
        "draining",
        "log",
        "max_message_bytes",
        "plain_log",
        "service",
        "switched_off",
        "tracer",
        "watchers",
    )

    def __init__(
        self, service: str, telemetry: Telemetry, authenticator: Authenticator, max_message_bytes: int
    ) -> None:
        self.service = service
        self.domain = f"minion.{service}"
        self.authenticator = authenticator
        self.max_message_bytes = max_message_bytes
        self.tracer = telemetry.tracer
        # Bound once: looking the logger up for every line costs as much as writing it.
        self.log = structlog.get_logger().bind()
        self.plain_log = PlainLog()
        self.draining = False
        self.watchers: set[asyncio.Task[Any]] = set()
        # Method → the setting that switched it off.
        self.switched_off: dict[str, str] = {}


class Method:
    """Serves one method of the contract."""

    __slots__ = (
        "_around",
        "_attributes",
        "_deadline",
        "_deserialize",
        "_endless",
        "_metrics",
        "_name",
        "_streams_in",
        "_streams_out",
        "behaviour",
    )

    def __init__(
        self,
        name: str,
        handler: "grpc.RpcMethodHandler[Any, Any]",
        around: Surroundings,
        metrics: MethodMetrics,
        default_deadline: float | None,
    ) -> None:
        self._name = name
        self._around = around
        self._metrics = metrics
        self._deadline = default_deadline
        self._endless = name.rpartition("/")[2].startswith("Watch")
        self._streams_in = handler.request_streaming
        self._streams_out = handler.response_streaming
        self.behaviour: Callable[[Any, Context], Any] = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream  # type: ignore[assignment]
        )
        self._deserialize = handler.request_deserializer
        self._attributes = {attributes.RPC_SYSTEM_NAME: "grpc", attributes.RPC_METHOD: name[1:]}

    def deserialize(self, data: bytes) -> Any:
        """Reads a request; one that is too large or no message of its type is refused once the caller is known."""
        limit = self._around.max_message_bytes
        if len(data) > limit:
            return Refused(
                ResourceExhausted(
                    f"The message has {len(data)} bytes; the limit is {limit}.",
                    reason="MESSAGE_TOO_LARGE",
                    metadata={"limit_bytes": str(limit)},
                )
            )
        if self._deserialize is None:
            return data
        try:
            return self._deserialize(data)
        except DecodeError:
            return Refused(InvalidArgument("The request is no message of this method's type, or nested too deep."))

    async def respond(self, request: Any, context: Context) -> Any:
        """Serves a call with one response, or one of a streaming handler that is a coroutine and writes by itself."""
        started = perf_counter()
        metadata = context.invocation_metadata() or ()
        span = self._enter(metadata, context)
        code, failure = _OK, None
        try:
            await self._admit(metadata)
            if request.__class__ is Refused:
                raise request.error
            requests = _checked(request) if self._streams_in else request
            if deadline.remaining() is None:
                return await self._within_default(requests, context)
            return await self.behaviour(requests, context)
        except BaseException as fault:
            code, failure = self._judge(fault, context)
            if failure is None:
                raise
        finally:
            # Cancelled calls pass here too; aborts are sent below, from no handler of ours that could catch them.
            self._leave(span, code, failure, started)
        return await self._abort(context, code, failure)

    async def stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """Serves a call with a stream of responses, of a handler that is an async generator."""
        started = perf_counter()
        metadata = context.invocation_metadata() or ()
        span = self._enter(metadata, context)
        code, failure = _OK, None
        task = asyncio.current_task()
        try:
            await self._admit(metadata)
            if request.__class__ is Refused:
                raise request.error
            if self._endless and task is not None:
                self._around.watchers.add(task)
            responses = self.behaviour(_checked(request) if self._streams_in else request, context)
            try:
                async for response in responses:
                    if self._endless:
                        await self._still_admitted(metadata)
                    yield response
            finally:
                # Closed here and not by the collector, so that its `finally` blocks run before the call ends.
                await responses.aclose()
        except BaseException as fault:
            code, failure = self._judge(fault, context)
            if failure is None:
                raise
        finally:
            if task is not None:
                self._around.watchers.discard(task)
            self._leave(span, code, failure, started)
        if failure is not None:
            await self._abort(context, code, failure)

    def _enter(self, metadata: Metadata, context: Context) -> Span:
        self._metrics.started()
        parent = propagation.extract(metadata)
        # Its attributes are set in one go at the end: setting them here as well would double what they cost.
        span = self._around.tracer.start_span(self._name, parent, kind=SpanKind.SERVER, record_exception=False)
        trace_context.attach(set_span_in_context(span, parent))
        deadline.enter(context.time_remaining())
        return span

    async def _admit(self, metadata: Metadata) -> None:
        identity = await self._around.authenticator.authenticate(metadata, self._name)
        identities.enter(identity)
        if (setting := self._around.switched_off.get(self._name)) is not None:
            raise Unimplemented(
                f"This method is switched off by the setting {setting}.",
                reason="FEATURE_DISABLED",
                metadata={"setting": setting},
            )
        bind_fields(
            service=self._around.service,
            method=self._name,
            tenant_id=None if identity.tenant_id is None else str(identity.tenant_id),
            principal=identity.origin,
        )

    async def _still_admitted(self, metadata: Metadata) -> None:
        # A watch may outlive its caller's credential: whoever is revoked or suspended hears nothing more. Services'
        # tokens are for the beginning of a call alone, and shorter than any watch.
        identity = identities.current()
        if identity is not None and identity.kind is CallerKind.TENANT:
            await self._around.authenticator.authenticate(metadata, self._name)

    async def _within_default(self, request: Any, context: Context) -> Any:
        if self._deadline is None:
            return await self.behaviour(request, context)
        deadline.enter(self._deadline)
        limit = asyncio.timeout(self._deadline)
        try:
            async with limit:
                return await self.behaviour(request, context)
        except TimeoutError:
            if limit.expired():
                raise deadline.exceeded() from None
            raise

    def _judge(self, fault: BaseException, context: Context) -> tuple[grpc.StatusCode, MinionError | Exception | None]:
        """Gives the code that a failed call ends with, and what to answer; None where gRPC answers by itself."""
        if isinstance(fault, MinionError):
            return error_table.row_of(fault).code, fault
        if isinstance(fault, grpc.aio.AbortError):
            # The handler aborted by itself, and the status is on its way.
            found: object = context.code()
            return found if isinstance(found, grpc.StatusCode) else grpc.StatusCode.UNKNOWN, None
        if isinstance(fault, grpc.aio.AioRpcError):
            translated = peer_errors.translate(fault, "peer")
            return error_table.row_of(translated).code, translated
        if isinstance(fault, Exception):
            return grpc.StatusCode.INTERNAL, fault
        if self._around.draining and self._endless and isinstance(fault, asyncio.CancelledError):
            stopping = Unavailable(_STOPPING, reason="SERVICE_STOPPING")
            return grpc.StatusCode.UNAVAILABLE, stopping
        if self._streams_out:
            # Its caller has heard enough. Whether the cancellation or the deadline reaches us first is chance.
            return grpc.StatusCode.CANCELLED, None
        left = deadline.remaining()
        over = left is not None and left <= 0
        return (grpc.StatusCode.DEADLINE_EXCEEDED if over else grpc.StatusCode.CANCELLED), None

    def _leave(self, span: Span, code: grpc.StatusCode, failure: BaseException | None, started: float) -> None:
        seconds = perf_counter() - started
        name = code.name
        self._metrics.handled(name, seconds)
        fields: dict[str, object] = {
            "service": self._around.service,
            "method": self._name,
            "code": name,
            "duration_ms": round(seconds * 1_000, 3),
        }
        if failure is None:
            self._around.plain_log.info("rpc", fields)
        elif isinstance(failure, MinionError):
            write = getattr(self._around.log, error_table.row_of(failure).level)
            write("rpc", **fields, reason=failure.reason, error=str(failure), about=failure.metadata)
        else:
            self._around.log.error("rpc", **fields, exc_info=failure)
        if span.is_recording():
            self._describe(span, code, failure)
        span.end()

    def _describe(self, span: Span, code: grpc.StatusCode, failure: BaseException | None) -> None:
        found = {**self._attributes, attributes.RPC_RESPONSE_STATUS_CODE: code.name}
        identity = identities.current()
        if identity is not None:
            found[attributes.MINION_PRINCIPAL] = mask_principal(identity.origin)
            if identity.tenant_id is not None:
                found[attributes.MINION_TENANT_ID] = str(identity.tenant_id)
        if isinstance(failure, MinionError):
            found[attributes.MINION_ERROR_REASON] = failure.reason
        elif failure is not None:
            # Its text may hold what the caller said, and so may its traceback; both stand in the log, masked.
            found[attributes.EXCEPTION_TYPE] = type(failure).__name__
        if code in _FAULTS:
            found[attributes.ERROR_TYPE] = code.name
            span.set_status(Status(StatusCode.ERROR, code.name))
        span.set_attributes(found)

    async def _abort(self, context: Context, code: grpc.StatusCode, failure: BaseException | None) -> NoReturn:
        if isinstance(failure, MinionError):
            details = error_table.details_of(failure, code, self._around.domain)
            message = error_table.message_of(failure)
        else:
            details = error_table.internal_details(self._around.domain, _trace_id())
            message = error_table.INTERNAL_MESSAGE
        await context.abort(code, message, ((error_table.DETAILS_KEY, details),))


def ending_with_the_drain(
    behaviour: Callable[[Any, Context], Any], around: Surroundings
) -> Callable[[Any, Context], Awaitable[None]]:
    """Wraps a handler of an exempt stream, coroutine or async generator, so that a drain ends it as it ends watches."""

    async def serve(request: Any, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        around.watchers.add(task)
        try:
            if inspect.isasyncgenfunction(behaviour):
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)
            else:
                await behaviour(request, context)
            return
        except asyncio.CancelledError:
            if not around.draining:
                raise
        finally:
            around.watchers.discard(task)
        await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)

    return serve


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request.__class__ is Refused:
            raise request.error
        yield request


def _trace_id() -> str:
    return f"{get_current_span().get_span_context().trace_id:032x}"
