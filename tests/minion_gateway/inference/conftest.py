"""A fake provider for each test, and ours on it."""

from collections.abc import AsyncIterator

import pytest
from minion_gateway.inference.providers.openai import OpenAIProvider
from minion_testing.fake_provider import FakeProvider

from tests.minion_gateway.inference.provider_stage import API_KEY, provider_at


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(api_key=API_KEY) as provider:
        yield provider


@pytest.fixture
async def provider(fake: FakeProvider) -> AsyncIterator[OpenAIProvider]:
    async with provider_at(fake.base_url, retry_wait_seconds=2.0) as opened:
        yield opened
