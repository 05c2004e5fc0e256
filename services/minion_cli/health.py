"""`minion health`: whether a service of this machine is well, as the health check of a container asks it."""

import http.client
import os
from typing import Annotated

import typer
from minion_errors import Unavailable

from minion_cli.application import single
from minion_cli.deployed import SERVICE_VARIABLE, named, operations_address

app = single("Ask a service of this machine whether it serves.")


@app.command()
def health(
    service: Annotated[
        str, typer.Argument(envvar=SERVICE_VARIABLE, help="gateway, registry, session, memory or activity.")
    ],
    live: Annotated[bool, typer.Option("--live", help="Ask only whether its process lives.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to wait for the answer.", min=0.1)] = 3.0,
) -> None:
    """Ask a service of this machine whether it serves; exits with 1 when it doesn't.

    Needs no credential: the question goes to the operations port, where MINION_<SERVICE>_OPERATIONS_PORT says.
    """
    host, port = operations_address(named(service), os.environ)
    path = "/healthz" if live else "/readyz"
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(1_000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as fault:
        raise Unavailable(f"Nobody answers at {host}:{port}{path}: {fault}.", reason="SERVICE_UNREACHABLE") from fault
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise Unavailable(f"The {service} at {host}:{port} says: {said}.", reason="SERVICE_NOT_READY")
    print(said)
