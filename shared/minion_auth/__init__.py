"""Who calls, and what they may: API keys, JWTs, service tokens, operators, scopes, and the table of permissions."""

from minion_auth.api_keys import ApiKeySecret
from minion_auth.authenticator import Authenticator, CredentialVerifier, VerifiedKey
from minion_auth.identity import EVERYTHING, CallerKind, Identity, acting_as, caller, tenant
from minion_auth.permissions import RULES, Rule
from minion_auth.service_tokens import ServiceTokens
from minion_auth.settings import AuthSettings

__all__ = [
    "EVERYTHING",
    "RULES",
    "ApiKeySecret",
    "AuthSettings",
    "Authenticator",
    "CallerKind",
    "CredentialVerifier",
    "Identity",
    "Rule",
    "ServiceTokens",
    "VerifiedKey",
    "acting_as",
    "caller",
    "tenant",
]
