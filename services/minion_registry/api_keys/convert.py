"""Between the contract's API keys and ours."""

from datetime import timedelta
from uuid import UUID

from minion.registry.v1 import api_key_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth import VerifiedKey
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_registry import requests
from minion_registry.api_keys.domain import ApiKey, NewApiKey

_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(days=3_650)
_DIGEST_BYTES = 32


def create_from_proto(request: pb.CreateApiKeyRequest) -> tuple[NewApiKey, Key | None]:
    """Reads a key that is to be. Raises InvalidArgument with all faults."""
    violations = Violations()
    ttl = None
    if request.HasField("ttl"):
        ttl = wire.from_duration(request.ttl, "ttl", violations)
        if not _SHORTEST <= ttl <= _LONGEST:
            violations.add("ttl", "must be between 1 min and 3,650 days")
    new = NewApiKey(display_name=violations.length("display_name", request.display_name, maximum=200), ttl=ttl)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return new, key


def revoke_from_proto(request: pb.RevokeApiKeyRequest) -> tuple[UUID, Key | None]:
    """Reads which key to revoke. Raises InvalidArgument with all faults."""
    violations = Violations()
    api_key_id = violations.identifier("api_key_id", request.api_key_id)
    key = requests.key(violations, request)
    violations.raise_if_any()
    return api_key_id, key


def digest_from_proto(request: pb.VerifyCredentialRequest) -> bytes:
    """Reads a credential's digest. Raises InvalidArgument when it is no SHA-256."""
    violations = Violations()
    if len(request.digest) != _DIGEST_BYTES:
        violations.add("digest", f"must have {_DIGEST_BYTES} bytes, has {len(request.digest)}")
    violations.raise_if_any()
    return request.digest


def api_key_to_proto(api_key: ApiKey) -> api_key_pb2.ApiKey:
    """Writes a key."""
    return api_key_pb2.ApiKey(
        api_key_id=str(api_key.api_key_id),
        display_name=api_key.display_name,
        prefix=api_key.prefix,
        create_time=wire.to_timestamp(api_key.create_time),
        expire_time=wire.to_optional_timestamp(api_key.expire_time),
        revoke_time=wire.to_optional_timestamp(api_key.revoke_time),
    )


def verified_to_proto(verified: VerifiedKey) -> pb.VerifyCredentialResponse:
    """Writes whose key it is."""
    return pb.VerifyCredentialResponse(
        tenant_id=str(verified.tenant_id),
        api_key_id=str(verified.key_id),
        expire_time=wire.to_optional_timestamp(verified.expire_time),
    )
