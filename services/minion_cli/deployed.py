"""A service that runs here, as the environment describes it; imports nothing that a probe would wait for."""

import ipaddress
from collections.abc import Mapping
from typing import Final

import typer

from minion_cli.development.ports import DOCUMENTED

# Says in a container which service it is; the image's build argument SERVICE sets it.
SERVICE_VARIABLE: Final = "MINION_SERVICE"


def named(service: str) -> str:
    """Gives the service's name back; raises BadParameter when there is no such service."""
    if service not in DOCUMENTED:
        raise typer.BadParameter(f"{service!r} is none of {', '.join(DOCUMENTED)}.", param_hint="SERVICE")
    return service


def operations_address(service: str, environ: Mapping[str, str]) -> tuple[str, int]:
    """Tells host and port to reach a service's operations port at from this machine, as its settings say.

    Raises BadParameter when the port is no number.
    """
    port = _given(environ, service, "OPERATIONS_PORT") or str(DOCUMENTED[service].operations)
    if not port.isdecimal():
        raise typer.BadParameter(f"The operations port is {port!r}, which is no number.")
    host = _given(environ, service, "OPERATIONS_HOST") or "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host, int(port)
    if address.is_unspecified:
        return ("::1" if address.version == 6 else "127.0.0.1"), int(port)
    return str(address), int(port)


def _given(environ: Mapping[str, str], service: str, name: str) -> str:
    return environ.get(f"MINION_{service.upper()}_{name}") or environ.get(f"MINION_{name}", "")
