"""Money and tokens before and after a call."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Role, ToolSpec, Usage
from minion_gateway.inference.estimator import TokenEstimator, bound_request, estimate_request, estimate_text
from minion_gateway.inference.prices import ModelPrice, Prices


def request(text: str, *, tools: int = 0, model: str = "openai/gpt-4o-mini") -> CompletionRequest:
    tool = ToolSpec("clock", "Tells the time.", {"type": "object"})
    return CompletionRequest(model, (ChatMessage(Role.USER, text),), (tool,) * tools)


def test_the_list_knows_the_usual_models() -> None:
    prices = Prices()
    # 900 fresh at 0.15, 100 cached at 0.075, 500 written at 0.60 USD a million.
    assert prices.cost_nanos("openai/gpt-4o-mini", Usage(1_000, 500, cached_tokens=100)) == 442_500
    assert prices.cost_nanos("openai/text-embedding-3-small", Usage(1_000)) == 20_000


def test_an_unknown_price_is_unknown_and_local_is_free() -> None:
    prices = Prices(openai_base_url="http://127.0.0.1:1/v1")
    assert prices.cost_nanos("openai/nobody-knows-it", Usage(1_000, 1_000)) is None
    assert prices.cost_nanos("nobody/at-all", Usage(1_000, 1_000)) is None
    assert prices.cost_nanos("local/stand-in", Usage(1_000, 1_000)) == 0


def test_tiered_prices_are_reckoned_by_the_list() -> None:
    prices = Prices()
    small, large = (prices.cost_nanos("google/gemini-2.5-pro", Usage(tokens, 0)) for tokens in (100_000, 400_000))
    assert small is not None
    assert large is not None
    assert large > 4 * small


def test_a_server_of_another_provider_is_billed_by_its_list() -> None:
    groq = Prices(openai_base_url="https://api.groq.com/openai/v1")
    assert groq.cost_nanos("openai/llama-3.3-70b-versatile", Usage(1_000_000, 0)) is not None
    assert Prices().cost_nanos("openai/llama-3.3-70b-versatile", Usage(1_000_000, 0)) is None


def test_the_operators_price_wins_and_rounds_up() -> None:
    prices = Prices({"openai/gpt-4o-mini": ModelPrice(Decimal("0.0001"), Decimal("0.0002"), Decimal(0))})
    assert prices.cost_nanos("openai/gpt-4o-mini", Usage(1, 0)) == 1
    assert prices.cost_nanos("openai/gpt-4o-mini", Usage(1_000_000, 1_000_000)) == 300_000
    assert prices.cost_nanos("openai/gpt-4o-mini", Usage(1_000_000, 0, cached_tokens=1_000_000)) == 0


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "google/gemini-2.5-pro"])
def test_the_worst_case_is_no_less_than_any_case(model: str) -> None:
    prices = Prices()
    worst = prices.worst_case_nanos(model, input_tokens=5_000, output_tokens=500)
    cost = prices.cost_nanos(model, Usage(4_000, 400, cached_tokens=1_000))
    assert worst is not None
    assert cost is not None
    assert worst >= cost


@given(st.text(max_size=500), st.integers(0, 3))
def test_the_bound_is_above_bytes_and_the_estimate_below_it(text: str, tools: int) -> None:
    asked = request(text, tools=tools)
    assert bound_request(asked) >= len(text.encode())
    assert 0 < estimate_request(asked) <= bound_request(asked)
    assert TokenEstimator().estimate(asked) <= bound_request(asked)


def test_an_estimate_errs_upwards_by_little() -> None:
    assert estimate_text("") == 0
    assert estimate_text("a") == 1
    assert estimate_text("word " * 100) == 138


def test_the_estimator_learns_a_models_tokenizer() -> None:
    estimator = TokenEstimator()
    asked = request("漢字" * 200)
    before = estimator.estimate(asked)
    for _ in range(20):
        estimator.observe(asked, Usage(input_tokens=600))
    assert abs(estimator.estimate(asked) - 600) < abs(before - 600)
    assert abs(estimator.estimate(asked) - 600) < 30
    assert estimator.estimate(request("漢字" * 200, model="openai/other")) == before


def test_an_estimate_is_not_learnt_from() -> None:
    estimator = TokenEstimator()
    asked = request("hello")
    before = estimator.estimate(asked)
    estimator.observe(asked, Usage(input_tokens=10_000, estimated=True))
    assert estimator.estimate(asked) == before
