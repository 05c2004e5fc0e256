"""Who may do what beyond the table of permissions: where a field decides, not the method."""

from minion_auth import CallerKind, caller
from minion_auth.authenticator import DEVELOPMENT_IDENTITY
from minion_errors import PermissionDenied


def only_services() -> None:
    """Raises PermissionDenied (`PERMISSION_MISSING`) unless a service calls: it alone may act for a run's step."""
    identity = caller()
    # Where authentication is switched off, everybody may do everything.
    if identity.kind is not CallerKind.SERVICE and identity != DEVELOPMENT_IDENTITY:
        raise PermissionDenied(
            "Services alone may append for a run.",
            reason="PERMISSION_MISSING",
            metadata={"permission": "sessions.append_for_run", "principal": identity.principal},
        )
