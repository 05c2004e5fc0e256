"""Puts the models together as the settings say."""

from minion_telemetry import Telemetry

from minion_gateway.inference.domain import Embedder, Model, ModelKind, Provider
from minion_gateway.inference.embedders.local import LocalEmbedder
from minion_gateway.inference.embedders.openai import OpenAIEmbedder
from minion_gateway.inference.prices import Prices
from minion_gateway.inference.providers.local import StandInProvider
from minion_gateway.inference.providers.openai import OpenAIProvider
from minion_gateway.inference.providers.openai_connection import ConnectionOptions, OpenAIConnection
from minion_gateway.inference.service import Inference
from minion_gateway.inference.settings import LOCAL_CHAT_MODEL, InferenceSettings


def build(settings: InferenceSettings, telemetry: Telemetry) -> Inference:
    """Returns all configured models; nothing is loaded and nobody is called yet."""
    providers: list[Provider] = [StandInProvider()]
    embedders: list[Embedder] = [LocalEmbedder(settings.model_cache)]
    chats = {LOCAL_CHAT_MODEL}
    if settings.openai_configured:
        connection = OpenAIConnection(_options(settings))
        providers.append(OpenAIProvider(connection))
        embedders += [
            OpenAIEmbedder(connection, name, dimensions)
            for name, dimensions in settings.openai_embedding_models.items()
        ]
        chats |= {f"openai/{name}" for name in settings.openai_chat_models}
    # The default is listed even where the operator left it out of the list.
    chats.add(settings.chat_model)
    models = [
        Model(
            name,
            name.partition("/")[0],
            ModelKind.CHAT,
            stand_in=name == LOCAL_CHAT_MODEL,
            default=name == settings.chat_model,
        )
        for name in chats
    ]
    models += [
        Model(
            embedder.model,
            embedder.model.partition("/")[0],
            ModelKind.EMBEDDING,
            embedder.dimensions,
            default=embedder.model == settings.default_embedding_model,
        )
        for embedder in embedders
    ]
    return Inference(
        providers=providers,
        embedders=embedders,
        models=models,
        prices=Prices(settings.price_overrides, openai_base_url=settings.openai_base_url),
        telemetry=telemetry,
    )


def _options(settings: InferenceSettings) -> ConnectionOptions:
    key = settings.openai_api_key
    return ConnectionOptions(
        # Servers of one's own often want no key, and the SDK wants one.
        api_key=key.get_secret_value() if key else "none",
        base_url=settings.openai_base_url,
        connect_seconds=settings.provider_connect_seconds,
        answer_seconds=settings.provider_answer_seconds,
        idle_seconds=settings.provider_idle_seconds,
        attempts=settings.provider_attempts,
        retry_wait_seconds=settings.provider_retry_wait_seconds,
    )
