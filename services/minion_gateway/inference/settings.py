"""Settings of the models: providers, time limits, retries, prices."""

from collections.abc import Iterator
from pathlib import Path

from minion_settings import Settings
from minion_settings.faults import Fault
from pydantic import Field, SecretStr

from minion_gateway.inference.prices import ModelPrice

LOCAL_CHAT_MODEL = "local/stand-in"
LOCAL_EMBEDDING_MODEL = "local/all-minilm-l6-v2"


class InferenceSettings(Settings):
    """Language and embedding models."""

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        description="The key of OpenAI, or of whatever answers at its base URL.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        pattern=r"^https?://",
        description="Any server that speaks OpenAI's protocol; unset means OpenAI itself.",
    )
    openai_chat_models: list[str] = Field(
        ["gpt-4o-mini", "gpt-4o"],
        description="Chat models that ListModels shows for OpenAI; any other name may be asked for all the same.",
    )
    openai_embedding_models: dict[str, int] = Field(
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

    def relations(self) -> Iterator[Fault]:
        """Yields a default that names a provider which is not configured."""
        yield from super().relations()
        for field in ("default_chat_model", "default_embedding_model"):
            if str(getattr(self, field)).startswith("openai/") and not self.openai_configured:
                yield Fault(
                    self.variable(field),
                    "names a model of OpenAI, but neither OPENAI_API_KEY nor OPENAI_BASE_URL is set",
                )
