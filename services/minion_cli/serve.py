"""`minion serve`: one service in this process, as a container runs it."""

import os
import sys
from typing import Annotated

import typer

from minion_cli.application import single
from minion_cli.deployed import SERVICE_VARIABLE, named

app = single("Run one service until it is told to stop.")


@app.command()
def serve(
    service: Annotated[
        str, typer.Argument(envvar=SERVICE_VARIABLE, help="gateway, registry, session, memory or activity.")
    ],
) -> None:
    """Run one service until it is told to stop; its settings are those of .env.example.

    The command becomes the service: its process, its signals and its exit code, 2 when the settings are wrong.
    """
    module = f"minion_{named(service)}"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - our own module
