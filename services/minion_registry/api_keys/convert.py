"""Between the contract's API keys and ours."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from minion.registry.v1 import api_key_pb2, tenant_pb2
from minion.registry.v1 import api_key_service_pb2 as pb
from minion_auth import EVERYTHING, VerifiedKey, scopes
from minion_errors import Violations
from minion_grpc import wire
from minion_postgres import Key

from minion_registry import requests
from minion_registry.api_keys.domain import ApiKey, NewApiKey, Rotation

_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(days=3_650)
_LONGEST_OVERLAP = timedelta(days=30)
_USUAL_OVERLAP = timedelta(hours=24)
_DIGEST_BYTES = 32
_MOST_SCOPES = 50
# Of a tenant that is suspended, or not.
_STATUSES = {True: tenant_pb2.TENANT_STATUS_SUSPENDED, False: tenant_pb2.TENANT_STATUS_ACTIVE}


def create_from_proto(request: pb.CreateApiKeyRequest) -> tuple[NewApiKey, Key | None]:
    """Reads a key that is to be. Raises InvalidArgument with all faults."""
    violations = Violations()
    new = NewApiKey(
        display_name=violations.length("display_name", request.display_name, maximum=200),
        ttl=_ttl(violations, request),
        scopes=_scopes(violations, request.scopes),
    )
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


def list_from_proto(request: pb.ListApiKeysRequest) -> tuple[int, str]:
    """Reads the page size and the token. Raises InvalidArgument with all faults."""
    violations = Violations()
    size = requests.page_size(violations, request.page_size)
    violations.raise_if_any()
    return size, request.page_token


def rotate_from_proto(request: pb.RotateApiKeyRequest) -> tuple[Rotation, Key | None]:
    """Reads which key to rotate, and how. Raises InvalidArgument with all faults."""
    violations = Violations()
    overlap = _USUAL_OVERLAP
    if request.HasField("overlap"):
        overlap = wire.from_duration(request.overlap, "overlap", violations)
        if not timedelta() <= overlap <= _LONGEST_OVERLAP:
            violations.add("overlap", "must be between 0 and 30 days")
    rotation = Rotation(
        api_key_id=violations.identifier("api_key_id", request.api_key_id),
        overlap=overlap,
        ttl=_ttl(violations, request),
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return rotation, key


def verify_from_proto(request: pb.VerifyCredentialRequest) -> bytes | UUID:
    """Reads a credential's digest, or else the tenant that is asked about. Raises InvalidArgument with all faults."""
    violations = Violations()
    if bool(request.digest) == bool(request.tenant_id):
        requests.either(violations, {"digest": request.digest.hex(), "tenant_id": request.tenant_id})
    tenant_id = violations.optional_identifier("tenant_id", request.tenant_id)
    if request.digest and len(request.digest) != _DIGEST_BYTES:
        violations.add("digest", f"must have {_DIGEST_BYTES} bytes, has {len(request.digest)}")
    violations.raise_if_any()
    return request.digest if tenant_id is None else tenant_id


def api_key_to_proto(api_key: ApiKey) -> api_key_pb2.ApiKey:
    """Writes a key."""
    return api_key_pb2.ApiKey(
        api_key_id=str(api_key.api_key_id),
        display_name=api_key.display_name,
        prefix=api_key.prefix,
        create_time=wire.to_timestamp(api_key.create_time),
        expire_time=wire.to_optional_timestamp(api_key.expire_time),
        revoke_time=wire.to_optional_timestamp(api_key.revoke_time),
        scopes=api_key.scopes,
        replaces_api_key_id=wire.optional_text(api_key.replaces),
    )


def verified_to_proto(verified: VerifiedKey) -> pb.VerifyCredentialResponse:
    """Writes whose key it is."""
    return pb.VerifyCredentialResponse(
        tenant_id=str(verified.tenant_id),
        api_key_id=str(verified.key_id),
        expire_time=wire.to_optional_timestamp(verified.expire_time),
        scopes=sorted(verified.scopes),
        tenant_status=_STATUSES[verified.suspended],
    )


def standing_to_proto(tenant_id: UUID, suspended: bool) -> pb.VerifyCredentialResponse:
    """Writes whether a tenant's credentials work."""
    return pb.VerifyCredentialResponse(tenant_id=str(tenant_id), tenant_status=_STATUSES[suspended])


def _ttl(violations: Violations, request: pb.CreateApiKeyRequest | pb.RotateApiKeyRequest) -> timedelta | None:
    if not request.HasField("ttl"):
        return None
    ttl = wire.from_duration(request.ttl, "ttl", violations)
    if not _SHORTEST <= ttl <= _LONGEST:
        violations.add("ttl", "must be between 1 min and 3,650 days")
    return ttl


def _scopes(violations: Violations, given: Sequence[str]) -> Sequence[str]:
    violations.count("scopes", given, maximum=_MOST_SCOPES)
    known = scopes.vocabulary()
    for index, scope in enumerate(given):
        if scope not in known:
            violations.add(f"scopes[{index}]", "names no permission of a tenant, such as agents.read, agents.* or *")
    return tuple(dict.fromkeys(given)) or tuple(EVERYTHING)
