"""Asking models: the name is resolved, the provider asked, the answer priced, measured and traced."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace

import structlog
from minion_errors import InvalidArgument, MinionError
from minion_telemetry import Telemetry, attributes, fail
from opentelemetry.trace import Span, SpanKind
from prometheus_client import Counter

from minion_gateway.inference.domain import (
    CURRENCY,
    Completion,
    CompletionRequest,
    Delta,
    Embedder,
    Embeddings,
    Finished,
    FinishReason,
    InferenceCall,
    Model,
    ModelKind,
    Operation,
    Provider,
    Usage,
)
from minion_gateway.inference.estimator import TokenEstimator, bound_request
from minion_gateway.inference.faults import answer_invalid
from minion_gateway.inference.messages import answered, asked
from minion_gateway.inference.metrics import ModelMetrics, ModelNames
from minion_gateway.inference.prices import Prices
from minion_gateway.inference.schemas import matches

Recorder = Callable[[InferenceCall], Awaitable[None]]

# How long an answer waits for its audit row.
_RECORD_SECONDS = 2.0
_log = structlog.get_logger()


class Inference:
    """All models of this deployment behind one face. The run engine calls it directly.

    Models are named `provider/model`; a bare name belongs to the default chat model's provider, and the empty name is
    the default. An unknown name raises InvalidArgument / MODEL_NOT_FOUND.
    """

    def __init__(
        self,
        *,
        providers: Sequence[Provider],
        embedders: Sequence[Embedder],
        models: Sequence[Model],
        prices: Prices,
        telemetry: Telemetry,
    ) -> None:
        self.estimator = TokenEstimator()
        self._providers: Mapping[str, Provider] = {provider.name: provider for provider in providers}
        self._embedders: Mapping[str, Embedder] = {embedder.model: embedder for embedder in embedders}
        self._models = tuple(sorted(models, key=lambda model: model.name))
        self._defaults = {model.kind: model.name for model in self._models if model.default}
        self._prices = prices
        self._tracer = telemetry.tracer
        self._content = telemetry.content
        self.unaudited = Counter(
            "inference_unaudited_total",
            "Calls whose audit row could not be written; the log has them.",
            registry=telemetry.registry,
        )
        names = ModelNames([*(model.name for model in self._models), *prices.overridden], prices)
        self._metrics = ModelMetrics(telemetry.registry, names, self._models)

    async def start(self) -> None:
        """Loads what the default models need, so that no first call stalls the event loop: call it before serving.

        Raises Unavailable where the local embedding model is the default and can't be prepared.
        """
        chat, embedding = (self._defaults.get(kind, "") for kind in (ModelKind.CHAT, ModelKind.EMBEDDING))
        for provider in self._providers.values():
            await provider.start()
        if embedder := self._embedders.get(embedding):
            await embedder.start()
        await asyncio.to_thread(self._prices.load, chat)

    async def complete(self, request: CompletionRequest) -> Completion:
        """Returns the whole answer with its cost. What providers raise is listed in `openai_faults`."""
        full, provider = self._chat(request.model)
        with self._observed(Operation.CHAT, full, provider.name, request) as span:
            completion = await provider.complete(replace(request, model=_bare(full)))
            return self._settled(request, full, completion, span)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yields the answer as it comes, `Finished` with the cost last.

        Closing the iterator, or canceling the task in it, closes the provider's connection.
        """
        full, provider = self._chat(request.model)
        with self._observed(Operation.CHAT, full, provider.name, request, streamed=True) as span:
            deltas = provider.stream(replace(request, model=_bare(full)))
            async with aclosing(deltas):
                async for delta in deltas:
                    if isinstance(delta, Finished):
                        yield Finished(self._settled(request, full, delta.completion, span))
                    else:
                        yield delta

    async def embed(self, texts: Sequence[str], model: str = "") -> Embeddings:
        """Returns one vector a text, in order, with the cost."""
        full = self.full_name(model, ModelKind.EMBEDDING)
        embedder = self._embedders.get(full)
        if embedder is None:
            raise _not_found(model)
        with self._observed(Operation.EMBEDDINGS, full, full.partition("/")[0], None) as span:
            embeddings = await embedder.embed(texts)
            cost = self._prices.cost_nanos(full, embeddings.usage)
            self._metrics.answered(full, full.partition("/")[0], embeddings.usage, cost)
            span.set_attribute(attributes.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, embeddings.dimensions)
            _describe_usage(span, embeddings.usage, cost)
            return embeddings.with_cost(cost)

    def models(self, kind: ModelKind | None = None) -> tuple[Model, ...]:
        """Returns the models that are offered, by name."""
        return tuple(model for model in self._models if kind in {None, model.kind})

    def full_name(self, model: str, kind: ModelKind = ModelKind.CHAT) -> str:
        """Returns `provider/model` for a name that may be bare or empty."""
        default = self._defaults.get(kind, "")
        if not model:
            return default
        return model if "/" in model else f"{default.partition('/')[0]}/{model}"

    def dimensions(self, model: str = "") -> int:
        """Returns the length of an embedding model's vectors."""
        embedder = self._embedders.get(self.full_name(model, ModelKind.EMBEDDING))
        if embedder is None:
            raise _not_found(model)
        return embedder.dimensions

    def worst_case_nanos(self, request: CompletionRequest) -> int | None:
        """Returns the most that a completion can cost; None where the price is unknown or the output is not limited."""
        full, _ = self._chat(request.model)
        if request.maximum_output_tokens is None:
            return None
        return self._prices.worst_case_nanos(
            full, input_tokens=bound_request(request), output_tokens=request.maximum_output_tokens
        )

    def price_bound(self, model: str, *, input_tokens: int, output_tokens: int) -> int | None:
        """Returns the most that so many tokens of a model can cost; None where its price is unknown."""
        return self._prices.worst_case_nanos(
            self.full_name(model), input_tokens=input_tokens, output_tokens=output_tokens
        )

    async def close(self) -> None:
        """Closes every provider and embedder."""
        for embedder in self._embedders.values():
            await embedder.close()
        for provider in self._providers.values():
            await provider.close()

    def _chat(self, model: str) -> tuple[str, Provider]:
        full = self.full_name(model)
        name, _, bare = full.partition("/")
        provider = self._providers.get(name)
        if provider is None or not bare or full in self._embedders:
            raise _not_found(model)
        # What stands here offers what is listed and no more; others know themselves what they have.
        if name == "local" and all(full != known.name for known in self._models):
            raise _not_found(model)
        return full, provider

    def _settled(self, request: CompletionRequest, full: str, completion: Completion, span: Span) -> Completion:
        cost = self._prices.cost_nanos(full, completion.usage)
        self._metrics.answered(full, full.partition("/")[0], completion.usage, cost)
        self.estimator.observe(replace(request, model=full), completion.usage)
        if completion.provider_model:
            span.set_attribute(attributes.GEN_AI_RESPONSE_MODEL, completion.provider_model)
        span.set_attribute(attributes.GEN_AI_RESPONSE_FINISH_REASONS, [completion.finish_reason.value])
        _describe_usage(span, completion.usage, cost)
        self._content.write_messages(span, attributes.GEN_AI_OUTPUT_MESSAGES, lambda: [answered(completion)])
        return completion.with_cost(cost)

    @contextmanager
    def _observed(
        self,
        operation: Operation,
        model: str,
        provider: str,
        request: CompletionRequest | None,
        *,
        streamed: bool = False,
    ) -> Iterator[Span]:
        # Started, not made current: a generator's context is its consumer's.
        span = self._tracer.start_span(
            f"{operation.value} {_bare(model)}",
            kind=SpanKind.CLIENT,
            attributes={
                attributes.GEN_AI_OPERATION_NAME: operation.value,
                attributes.GEN_AI_PROVIDER_NAME: provider,
                attributes.GEN_AI_REQUEST_MODEL: _bare(model),
            },
        )
        if request is not None:
            if request.temperature is not None:
                span.set_attribute(attributes.GEN_AI_REQUEST_TEMPERATURE, request.temperature)
            if request.maximum_output_tokens is not None:
                span.set_attribute(attributes.GEN_AI_REQUEST_MAX_TOKENS, request.maximum_output_tokens)
            if request.attempt:
                span.set_attribute(attributes.MINION_ATTEMPT, request.attempt)
            if streamed:
                span.set_attribute(attributes.GEN_AI_REQUEST_STREAM, True)
            self._content.write_messages(span, attributes.GEN_AI_INPUT_MESSAGES, lambda: asked(request))
        timing = self._metrics.start(operation, model, provider)
        try:
            yield span
        except BaseException as error:
            fail(span, error)
            timing.end("error" if isinstance(error, Exception) else "canceled")
            raise
        else:
            timing.end("ok")
        finally:
            span.end()


class RecordedInference:
    """What clients may ask of the models with no run around it; every call is recorded for the audit.

    `record` is awaited once a call, whatever became of it. An answer that was paid for is given even where its row
    can't be written: the row then stands in the log, as an error, and is counted in `inference_unaudited_total`.
    """

    def __init__(self, inference: Inference, record: Recorder) -> None:
        self._inference = inference
        self._record = record

    async def complete(self, request: CompletionRequest) -> Completion:
        """Returns the whole answer."""
        full = self._inference.full_name(request.model)
        try:
            completion = await self._inference.complete(request)
        except BaseException as error:
            await self._write_down(_failed(Operation.CHAT, full, error))
            raise
        await self._settle(request, full, completion)
        return completion

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Yields the answer as it comes."""
        full = self._inference.full_name(request.model)
        finished: Completion | None = None
        try:
            async with aclosing(self._inference.stream(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, Finished):
                        finished = delta.completion
                        await self._settle(request, full, finished)
                    yield delta
        except BaseException as error:
            if finished is None:
                await self._write_down(_failed(Operation.CHAT, full, error))
            raise

    async def embed(self, texts: Sequence[str], model: str) -> Embeddings:
        """Returns one vector a text."""
        full = self._inference.full_name(model, ModelKind.EMBEDDING)
        try:
            embeddings = await self._inference.embed(texts, model)
        except BaseException as error:
            await self._write_down(_failed(Operation.EMBEDDINGS, full, error))
            raise
        await self._write_down(InferenceCall(Operation.EMBEDDINGS, full, embeddings.usage, embeddings.cost_nanos))
        return embeddings

    def models(self, kind: ModelKind | None, *, after: str, limit: int) -> tuple[Model, ...]:
        """Returns up to `limit` models whose names come after `after`."""
        return tuple(model for model in self._inference.models(kind) if model.name > after)[:limit]

    async def _settle(self, request: CompletionRequest, full: str, completion: Completion) -> None:
        """Records an answer; one that isn't what the request's schema asks for was paid for all the same."""
        fault = _schema_fault(request, completion)
        reason = fault.reason if fault else ""
        await self._write_down(InferenceCall(Operation.CHAT, full, completion.usage, completion.cost_nanos, reason))
        if fault:
            raise fault

    async def _write_down(self, call: InferenceCall) -> None:
        try:
            async with asyncio.timeout(_RECORD_SECONDS):
                await self._record(call)
        except (MinionError, TimeoutError) as fault:
            self._inference.unaudited.inc()
            _log.error(
                "a call of a model is not audited",
                operation=call.operation.value,
                model=call.model,
                input_tokens=call.usage.input_tokens,
                output_tokens=call.usage.output_tokens,
                cached_tokens=call.usage.cached_tokens,
                reasoning_tokens=call.usage.reasoning_tokens,
                cost_nanos=call.cost_nanos,
                error_reason=call.reason,
                cause=str(fault) or type(fault).__name__,
            )


def _schema_fault(request: CompletionRequest, completion: Completion) -> MinionError | None:
    # An answer that was cut, refused or left for tools says so by its finish reason.
    if request.response_schema is None or completion.finish_reason is not FinishReason.STOP:
        return None
    if matches(completion.text, request.response_schema):
        return None
    return answer_invalid("The model's answer is not what its schema asks for.")


def _bare(full: str) -> str:
    return full.partition("/")[2]


def _failed(operation: Operation, model: str, error: BaseException) -> InferenceCall:
    if isinstance(error, MinionError):
        reason = error.reason
    else:
        reason = "INTERNAL" if isinstance(error, Exception) else "CANCELED"
    return InferenceCall(operation, model, Usage(), None, reason)


def _not_found(model: str) -> InvalidArgument:
    return InvalidArgument(
        "No model of this name is configured.",
        reason="MODEL_NOT_FOUND",
        metadata={"model": model[:200], "charged": "no"},
    )


def _describe_usage(span: Span, usage: Usage, cost_nanos: int | None) -> None:
    found: dict[str, str | int] = {
        attributes.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        attributes.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
    }
    if usage.cached_tokens:
        found[attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = usage.cached_tokens
    if usage.reasoning_tokens:
        found[attributes.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] = usage.reasoning_tokens
    if cost_nanos is not None:
        found[attributes.MINION_COST_NANOS] = cost_nanos
        found[attributes.MINION_COST_CURRENCY] = CURRENCY
    span.set_attributes(found)
