"""Settings of the models: providers, time limits, retries, prices."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from minion_settings import Fault, HttpAddress, Settings, relation
from pydantic import Field, SecretStr

from minion_gateway.inference.prices import ModelPrice

LOCAL_CHAT_MODEL = "local/stand-in"
LOCAL_EMBEDDING_MODEL = "local/all-minilm-l6-v2"
_PROVIDERS = ("openai", "local")


class InferenceSettings(Settings):
    """Language and embedding models."""

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        description="The key of OpenAI, or of whatever answers at its base URL.",
    )
    openai_base_url: HttpAddress | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        description="Any server that speaks OpenAI's protocol; unset means OpenAI itself.",
    )
    openai_chat_models: list[str] = Field(
        ["gpt-4o-mini", "gpt-4o"],
        description="Chat models that ListModels shows for OpenAI; any other name may be asked for all the same.",
    )
    openai_embedding_models: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {"text-embedding-3-small": 1536},
        description="Embedding models of OpenAI that may be asked, each with the length of its vectors.",
    )
    default_chat_model: str = Field(
        "",
        description=f"The model asked when none is named; unset means openai's first where it is configured, else "
        f"{LOCAL_CHAT_MODEL}.",
    )
    default_embedding_model: str = Field(
        LOCAL_EMBEDDING_MODEL, description="The embedding model used when none is named, as provider/model."
    )
    model_cache: Path = Field(
        Path(".minion/models"), description="The directory that the local embedding model is prepared in, once."
    )
    provider_connect_seconds: float = Field(5.0, gt=0, le=60, description="Time limit for reaching a provider.")
    provider_answer_seconds: float = Field(
        120.0, gt=0, le=3600, description="Time limit for a provider's whole answer where it is not streamed."
    )
    provider_idle_seconds: float = Field(
        60.0, gt=0, le=3600, description="Longest silence of a provider before and within a streamed answer."
    )
    provider_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a provider that refuses for now, all before the first token."
    )
    provider_retry_wait_seconds: float = Field(
        5.0, ge=0, le=60, description="Longest wait between attempts; a provider that asks for more is not waited for."
    )
    price_overrides: dict[str, ModelPrice] = Field(
        {},
        description="Prices that replace the built-in list, in US dollars per million tokens, as in "
        '{"openai/my-model": {"input": 0.15, "output": 0.6, "cached_input": 0.075}}.',
    )

    @property
    def openai_configured(self) -> bool:
        """Whether OpenAI, or a server that speaks its protocol, can be asked."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    @property
    def chat_model(self) -> str:
        """The full name of the model that is asked when none is named."""
        if self.default_chat_model:
            return self.default_chat_model
        if self.openai_configured and self.openai_chat_models:
            return f"openai/{self.openai_chat_models[0]}"
        return LOCAL_CHAT_MODEL

    @relation
    def _chat_model_can_be_asked(self) -> Iterator[Fault]:
        """Yields a default that no provider has."""
        if self.default_chat_model:
            yield from self._model_faults("default_chat_model", self.default_chat_model, LOCAL_CHAT_MODEL)

    @relation
    def _embedding_model_can_be_asked(self) -> Iterator[Fault]:
        """Yields a default that no provider has."""
        yield from self._model_faults("default_embedding_model", self.default_embedding_model, LOCAL_EMBEDDING_MODEL)

    @relation
    def _embedding_model_is_listed(self) -> Iterator[Fault]:
        """Yields a default whose vectors have no known length."""
        provider, _, name = self.default_embedding_model.partition("/")
        if provider == "openai" and name not in self.openai_embedding_models:
            yield Fault(
                self.variable("default_embedding_model"), f"is not among {self.variable('openai_embedding_models')}"
            )

    def _model_faults(self, field: str, model: str, local: str) -> Iterator[Fault]:
        variable, (provider, _, name) = self.variable(field), model.partition("/")
        if provider not in _PROVIDERS or not name:
            yield Fault(variable, f"must be provider/model, of {' or '.join(_PROVIDERS)} (is {model!r})")
        elif provider == "local" and model != local:
            yield Fault(variable, f"names no local model; there is {local} (is {model!r})")
        elif provider == "openai" and not self.openai_configured:
            yield Fault(variable, "names a model of OpenAI, but neither OPENAI_API_KEY nor OPENAI_BASE_URL is set")
