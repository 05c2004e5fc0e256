"""What a deployment decides about who may call."""

from typing import Annotated, Literal

from minion_settings import Settings
from pydantic import AfterValidator, Field, SecretStr

from minion_auth.service_tokens import MINIMUM_KEY_BYTES


def _long_enough(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value().encode()) < MINIMUM_KEY_BYTES:
        raise ValueError(f"must have at least {MINIMUM_KEY_BYTES} bytes")
    return secret


class AuthSettings(Settings):
    """Settings of authentication."""

    auth_mode: Literal["required", "disabled"] = Field(
        description="Whether calls need a credential: required, or disabled (on a loopback host only). There is no "
        "default: a service with neither does not start."
    )
    service_key: Annotated[SecretStr | None, AfterValidator(_long_enough)] = Field(
        default=None,
        description="Key by which the services of one deployment sign tokens for each other: the same for all, 32 "
        "bytes or more.",
    )
    operator_key: Annotated[SecretStr | None, AfterValidator(_long_enough)] = Field(
        default=None, description="Credential of operators, 32 bytes or more. Unset: there are no operators."
    )
    registry_address: str = Field(
        default="localhost:50051", description="Where the registry answers, which knows the API keys."
    )
    credential_cache_seconds: float = Field(
        default=5.0, ge=0, le=5, description="How long a checked API key is believed, and with it a revoked one."
    )
    credential_grace_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3_600,
        description="How long keys seen before stay good while the registry can't be reached.",
    )
