"""What is counted of models, and by which names."""

from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest_asyncio
from genai_prices.data_snapshot import get_snapshot
from minion_gateway.inference.domain import Model, ModelKind, Operation, Usage
from minion_gateway.inference.metrics import ModelMetrics, ModelNames
from minion_gateway.inference.prices import ModelPrice, Prices
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply
from minion_testing.scraping import scraped_meanwhile
from prometheus_client import CollectorRegistry, generate_latest

from tests.minion_gateway.inference.inference_stage import Served, serving
from tests.minion_gateway.inference.test_inference_service import complete

_MINI = {"provider": "openai", "model": "openai/gpt-4o-mini"}


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider that answers by any model's name."""
    async with FakeProvider() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def served(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Served]:
    """InferenceService in front of it; the embedding model is not loaded."""
    async with serving(
        tmp_path,
        openai_base_url=provider.base_url,
        openai_api_key="sk-test",
        default_embedding_model="openai/text-embedding-3-small",
        price_overrides={"openai/house-model": {"input": 1, "output": 2}},
    ) as running:
        yield running


def value(served: Served, name: str, **labels: str) -> float | None:
    return served.telemetry.registry.get_sample_value(name, labels)


async def test_tokens_and_cost_are_counted_by_model(served: Served, provider: FakeProvider) -> None:
    assert value(served, "llm_tokens_total", kind="input", **_MINI) == 0
    assert value(served, "llm_cost_usd_total", **_MINI) == value(served, "llm_unpriced_calls_total", **_MINI) == 0
    assert value(served, "llm_latency_seconds_count", operation="chat", outcome="ok", **_MINI) == 0
    provider.push(
        *[Reply("x", input_tokens=1_000, cached_tokens=400, output_tokens=300, reasoning_tokens=200) for _ in range(2)]
    )
    cost = 0
    for _ in range(2):
        cost += (await served.stub.Complete(complete("hello"))).completion.cost_nanos
    counted = {
        kind: value(served, "llm_tokens_total", kind=kind, **_MINI)
        for kind in ("input", "cached_input", "output", "reasoning")
    }
    assert counted == {"input": 2_000, "cached_input": 800, "output": 600, "reasoning": 400}
    assert cost > 0
    assert value(served, "llm_cost_usd_total", **_MINI) == cost / 1e9
    assert value(served, "llm_unpriced_calls_total", **_MINI) == 0
    assert value(served, "llm_latency_seconds_count", operation="chat", outcome="ok", **_MINI) == 2


async def test_a_models_label_is_the_operators_name_or_the_lists_and_never_a_callers(
    served: Served, provider: FakeProvider
) -> None:
    del provider
    for model in (
        "openai/house-model",
        "openai/gpt-4o-2024-11-20",
        "openai/ada@example.org",
        "openai/gpt-4o-acme-secret",
    ):
        await served.stub.Complete(complete("hello", model=model))
    told = served.metrics()
    assert value(served, "llm_tokens_total", provider="openai", model="openai/house-model", kind="output")
    # As the price list calls what was asked by a longer name.
    assert value(served, "llm_tokens_total", provider="openai", model="openai/gpt-4o", kind="output")
    assert value(served, "llm_unpriced_calls_total", provider="openai", model="other") == 2
    assert "2024-11-20" not in told
    assert "example.org" not in told
    assert "acme" not in told


def test_there_is_an_end_of_names() -> None:
    prices = Prices({"openai/mine": ModelPrice(Decimal(1))})
    named = (f"{provider.id}/{model.id}" for provider in get_snapshot().providers for model in provider.models)
    listed = list(islice((name for name in named if prices.listed_name(name) == name), 1_000))
    registry = CollectorRegistry()
    metrics = ModelMetrics(
        registry, ModelNames(["openai/mine"], prices), [Model("openai/mine", "openai", ModelKind.CHAT)]
    )
    for name in listed:
        metrics.answered(name, "openai", Usage(1, 1), None)
        metrics.ended(Operation.CHAT, name, "openai", "ok", 0.1)
    told = generate_latest(registry).decode()
    # 99 beside the configured one, and the rest together.
    assert told.count("llm_cost_usd_total{") == 101
    assert registry.get_sample_value("llm_unpriced_calls_total", {"provider": "openai", "model": "other"}) == 901
    metrics.answered("openai/mine", "openai", Usage(1, 1), 5)
    assert registry.get_sample_value("llm_cost_usd_total", {"provider": "openai", "model": "openai/mine"}) == 5e-9


def test_a_scrape_stands_models_that_are_added_meanwhile() -> None:
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, ModelNames([], Prices()), [])

    def work(number: int) -> None:
        # Providers, of which there is no bound here: the models' names would come to an end.
        metrics.answered("local/x", f"p{number}", Usage(1, 1), 1)
        metrics.ended(Operation.CHAT, "local/x", f"p{number}", "ok", 0.1)

    texts = scraped_meanwhile(registry, work, rounds=600)
    assert texts[-1].count("llm_latency_seconds_count{") == texts[-1].count("llm_cost_usd_total{") == 600
