"""What tokens cost, in nano-units of US dollars.

The operator's overrides come first, then `genai-prices`' list as installed (it is never fetched). A model in neither
has no known price, which is None and never 0.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from minion_gateway.inference.domain import NANOS_PER_USD, Usage

_MILLION = 1_000_000
# What runs here costs nothing a token, by declaration.
_LOCAL = "local/"
# The list reckons 0.2 ms a call; prices without tiers are remembered, for a while because some vary by the hour.
_REMEMBERED_SECONDS = 60.0
_REMEMBERED_MODELS = 1_000


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars per million tokens. Cached input costs as other input where it is not given."""

    input: Decimal
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None

    def cost_nanos(self, usage: Usage) -> int:
        """Returns the price of the tokens, rounded up to a whole nano-unit."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        cached = min(usage.cached_tokens, usage.input_tokens)
        per_million = (
            self.input * (usage.input_tokens - cached) + cached_price * cached + self.output * usage.output_tokens
        )
        return int((per_million * NANOS_PER_USD / _MILLION).to_integral_value(ROUND_CEILING))


class Prices:
    """Prices by a model's full name.

    `openai_base_url` tells whose price list counts for `openai/…`: that of the provider which `genai-prices` knows at
    this address, else OpenAI's own by the model's name.
    """

    def __init__(
        self, overrides: Mapping[str, ModelPrice] | None = None, *, openai_base_url: str | None = None
    ) -> None:
        self._overrides = dict(overrides or {})
        self._openai_base_url = openai_base_url
        self._flat: dict[str, _Remembered] = {}

    @property
    def overridden(self) -> Sequence[str]:
        """The models that the operator gave a price."""
        return tuple(self._overrides)

    def load(self, model: str) -> None:
        """Loads the list, which takes a quarter of a second, and remembers a model's price."""
        self.cost_nanos(model, Usage())

    def cost_nanos(self, model: str, usage: Usage) -> int | None:
        """Returns what the usage costs, or None where the model's price is unknown."""
        if override := self._overrides.get(model):
            return override.cost_nanos(usage)
        if model.startswith(_LOCAL):
            return 0
        return self._listed(model, usage)

    def listed_name(self, model: str) -> str | None:
        """Returns a model's name in the list, as in `openai/gpt-4o` for `openai/gpt-4o-2024-11-20`; None for none."""
        return None if model.startswith(_LOCAL) else self._known(model, Usage()).name

    def worst_case_nanos(self, model: str, *, input_tokens: int, output_tokens: int) -> int | None:
        """Returns the most that a call can cost, with nothing cached; None where the price is unknown."""
        return self.cost_nanos(model, Usage(input_tokens=input_tokens, output_tokens=output_tokens))

    def _listed(self, model: str, usage: Usage) -> int | None:
        known = self._known(model, usage)
        if known.flat is not None:
            return known.flat.cost_nanos(usage)
        return None if known.cost is None else self._calculated(model, usage)[0]

    def _known(self, model: str, usage: Usage) -> "_Remembered":
        known = self._flat.get(model)
        if known is None or known.until < time.monotonic():
            if len(self._flat) >= _REMEMBERED_MODELS:
                self._flat.clear()
            known = self._flat[model] = _Remembered(
                time.monotonic() + _REMEMBERED_SECONDS, *self._calculated(model, usage)
            )
        return known

    def _calculated(self, model: str, usage: Usage) -> tuple[int | None, ModelPrice | None, str | None]:
        """Returns the cost by the list's own reckoning, prices where no tiers are among them, and the list's name."""
        # Imported late: the list takes 0.2 s and 20 MB.
        import genai_prices  # noqa: PLC0415
        from genai_prices.types import Usage as ListedUsage  # noqa: PLC0415

        provider, _, name = model.partition("/")
        listed = ListedUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=min(usage.cached_tokens, usage.input_tokens),
        )
        price = None
        if provider == "openai" and self._openai_base_url:
            with suppress(LookupError):
                price = genai_prices.calc_price(listed, name, provider_api_url=self._openai_base_url)
        if price is None:
            with suppress(LookupError):
                price = genai_prices.calc_price(listed, name, provider_id=provider)
        if price is None:
            return None, None, None
        listed_name = f"{provider}/{price.model.id}"
        cost = int((price.total_price * NANOS_PER_USD).to_integral_value(ROUND_CEILING))
        prices = price.model_price
        into, out, cached = prices.input_mtok, prices.output_mtok or Decimal(0), prices.cache_read_mtok
        if not isinstance(into, Decimal) or not isinstance(out, Decimal) or not isinstance(cached, Decimal | None):
            return cost, None, listed_name
        return cost, ModelPrice(into, out, cached), listed_name


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the list said of a model: a cost of None is an unknown model, no flat price one that has tiers."""

    until: float
    cost: int | None
    flat: ModelPrice | None
    name: str | None
