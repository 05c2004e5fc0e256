"""What a deployment decides about who may call."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from minion_settings import Address, Fault, Settings, relation
from pydantic import AfterValidator, Field, SecretStr

from minion_auth import api_keys, bearer, scopes
from minion_auth.service_tokens import ISSUER, MINIMUM_KEY_BYTES

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]


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
    registry_address: Address = Field(
        default="localhost:50051", description="Where the registry answers, which knows API keys and tenants."
    )
    credential_cache_seconds: float = Field(
        default=5.0,
        ge=0,
        le=5,
        description="How long what the registry says of an API key or a tenant is believed, and with it of a revoked "
        "or suspended one.",
    )
    credential_grace_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3_600,
        description="How long keys and tenants seen before stay good while the registry can't be reached.",
    )
    jwt_issuer: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        description="Issuer (iss) whose JSON Web Tokens clients may call with, beside API keys. Unset: none is taken.",
    )
    jwt_audience: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        description="Audience (aud) that such a token must be made for: this text alone, and no list.",
    )
    jwt_jwks: str | None = Field(
        default=None,
        min_length=1,
        max_length=2_000,
        description="The issuer's public keys (JWKS): an https address, an http address on loopback, or a file.",
    )
    jwt_algorithms: list[Algorithm] = Field(
        default=["RS256", "ES256", "EdDSA"],
        min_length=1,
        description="Algorithms that such a token may be signed with: RS256, RS384, RS512, PS256, PS384, PS512, ES256, "
        "ES384, EdDSA.",
    )
    jwt_tenant_claim: str = Field(
        default="minion_tenant",
        min_length=1,
        max_length=200,
        description="Claim that names the tenant's id; a token without it is refused.",
    )
    jwt_scope_claim: str = Field(
        default="scope",
        min_length=1,
        max_length=200,
        description="Claim with the scopes, as a list or as one text with spaces in between.",
    )
    jwt_default_scopes: list[str] = Field(
        default=[],
        description="Scopes of a token that has no such claim. None by default: it may call nothing.",
    )

    @relation
    def _operator_key_is_known_by_its_looks(self) -> Iterator[Fault]:
        """Yields why no operator could ever call: the key can't be sent, or would be taken for another credential."""
        key = "" if self.operator_key is None else self.operator_key.get_secret_value()
        variable = self.variable("operator_key")
        if key and not bearer.can_be_sent(key):
            yield Fault(variable, "must be printable ASCII with no space around it and no line's end, and not too long")
        if key.startswith(api_keys.PREFIX):
            yield Fault(variable, f"must not begin with {api_keys.PREFIX!r}, as API keys do")
        if key.count(".") == 2 and (self.service_key is not None or self.jwt_issuer is not None):
            yield Fault(variable, "must not have two dots, as JWTs and the services' own tokens have")

    @relation
    def _keys_differ(self) -> Iterator[Fault]:
        """Yields an operator's key by which everybody who holds it could sign as a service."""
        if self.operator_key is not None and self.operator_key == self.service_key:
            yield Fault(self.variable("operator_key"), f"must not be {self.variable('service_key')} too")

    @relation
    def _no_door_is_open_in_production(self) -> Iterator[Fault]:
        """Yields authentication that is off where real users are."""
        if self.is_production and self.auth_mode == "disabled":
            yield Fault(
                self.variable("auth_mode"), f"may not be disabled where {self.variable('environment')} is production"
            )

    @relation
    def _jwt_is_whole(self) -> Iterator[Fault]:
        """Yields what is missing of JWTs where anything of them is set."""
        needed = ("jwt_issuer", "jwt_audience", "jwt_jwks")
        # One that can't be used is given all the same, and is told by itself.
        given = [name for name in needed if getattr(self, name, "") is not None]
        for name in needed:
            if given and name not in given:
                yield Fault(self.variable(name), f"is required where {self.variable(given[0])} is set")

    @relation
    def _jwt_issuer_is_another(self) -> Iterator[Fault]:
        """Yields an issuer that the services themselves are."""
        if self.jwt_issuer == ISSUER:
            yield Fault(self.variable("jwt_issuer"), f"must not be {ISSUER!r}, which issues the services' own tokens")

    @relation
    def _jwt_keys_can_be_had(self) -> Iterator[Fault]:
        """Yields a place where no keys are, or from where they must not come."""
        if self.jwt_jwks is not None and (fault := _jwks_fault(self.jwt_jwks)):
            yield Fault(self.variable("jwt_jwks"), fault)

    @relation
    def _jwt_claims_differ(self) -> Iterator[Fault]:
        """Yields one claim that would be both tenant and scopes."""
        if self.jwt_tenant_claim == self.jwt_scope_claim:
            yield Fault(self.variable("jwt_scope_claim"), f"must not be {self.variable('jwt_tenant_claim')} too")

    @relation
    def _jwt_scopes_are_known(self) -> Iterator[Fault]:
        """Yields default scopes that there are not."""
        unknown = sorted(set(self.jwt_default_scopes) - scopes.vocabulary())
        if unknown:
            yield Fault(self.variable("jwt_default_scopes"), f"names what is no scope: {', '.join(unknown)}")


def _jwks_fault(address: str) -> str | None:
    if "://" not in address:
        return None if Path(address).is_file() else "names no file, and is no address with https://"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no address"
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return "must be an address of a host, with no user and no fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must begin with https:// (http:// is for loopback hosts alone)"


def is_loopback(host: str) -> bool:
    """Tells whether a host is this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
