"""The environment that a stack's services are given: the caller's own, and what makes them one stack."""

from collections.abc import Mapping

from minion_grpc.tls_settings import TlsSettings

from minion_cli.development.directory import Credentials, Directory
from minion_cli.development.ports import Ports

# One machine's services talk over its loopback, in plain text; TLS would want certificates that nobody has made.
_TRANSPORT = tuple(f"_{field.upper()}" for field in TlsSettings.__annotations__)


def environment(
    environ: Mapping[str, str],
    *,
    directory: Directory,
    credentials: Credentials,
    ports: Mapping[str, Ports],
    database: Mapping[str, str],
) -> dict[str, str]:
    """Gives every setting of the stack; what makes it one stack wins over the caller's, comfort does not."""
    comfort = {
        "MINION_MODEL_CACHE": str(directory.models),
        "MINION_DRAIN_SECONDS": "5",
        # Five pools on one machine: they grow with the load, and a start opens few connections.
        "MINION_POOL_MIN_SIZE": "1",
    }
    stack = {
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": credentials.service_key,
        "MINION_OPERATOR_KEY": credentials.operator_key,
        **database,
    }
    for service, pair in ports.items():
        name = service.upper()
        stack[f"MINION_{name}_ADDRESS"] = f"127.0.0.1:{pair.rpc}"
        stack[f"MINION_{name}_PORT"] = str(pair.rpc)
        stack[f"MINION_{name}_OPERATIONS_PORT"] = str(pair.operations)
    given = {name: value for name, value in environ.items() if value and not _is_transport(name)}
    return {**comfort, **given, **stack}


def _is_transport(variable: str) -> bool:
    return variable.startswith("MINION_") and variable.endswith(_TRANSPORT)
