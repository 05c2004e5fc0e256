"""`minion secrets`: the secrets of a new deployment, as docker-compose.yml reads them."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Final

import typer
from minion_errors import AlreadyExists, FailedPrecondition

from minion_cli.application import single
from minion_cli.development.ports import DOCUMENTED

app = single("Make the secrets of a new deployment, random ones.")

_HEAD: Final = """\
# The secrets of one deployment, made by `minion secrets`. docker compose reads them; nobody else should, and no
# version control. Postgres, Grafana and pgAdmin take theirs when they first start: keep this file with their volumes.
# Settings that are no secrets (.env.example) may stand here too where docker-compose.yml passes them on.
"""


@app.command()
def secrets(
    out: Annotated[Path | None, typer.Option(help="The file to write; it must not exist. Unset: print.")] = None,
) -> None:
    """Make the secrets of a new deployment, random ones; no file that exists is ever written over."""
    text = _HEAD + "".join(f"\n# {why}\n{lines}" for why, lines in _sections(made()).items())
    if out is None:
        sys.stdout.write(text)
        return
    try:
        # For this user's eyes alone, and never through a file or link that is there already.
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as fault:
        raise AlreadyExists(
            f"{out} exists, and may hold the only copy of a database's passwords: move it away first.",
            reason="FILE_EXISTS",
        ) from fault
    except OSError as fault:
        raise FailedPrecondition(f"{out} can't be written: {fault.strerror}.", reason="FILE_UNWRITABLE") from fault
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {out}")


def made() -> dict[str, Mapping[str, str]]:
    """Makes fresh secrets: what they are for → variable → secret. Hexadecimal, fit for connection strings too."""
    services = [service.upper() for service in DOCUMENTED]
    return {
        "Signs what the services say to each other, and the credential of operators.": {
            "MINION_SERVICE_KEY": token_hex(32),
            "MINION_OPERATOR_KEY": "mno_" + token_hex(32),
        },
        "Postgres: its superuser, which only the migrating job uses.": {"POSTGRES_PASSWORD": token_hex(24)},
        "The services' own roles.": {f"MINION_{name}_DATABASE_PASSWORD": token_hex(24) for name in services},
        "The owners of their schemas.": {f"MINION_{name}_OWNER_DATABASE_PASSWORD": token_hex(24) for name in services},
        "The role that reads Postgres' statistics.": {"MINION_MONITOR_DATABASE_PASSWORD": token_hex(24)},
        "People's doors: Grafana (admin), pgAdmin (admin@example.com).": {
            "GRAFANA_PASSWORD": token_hex(16),
            "PGADMIN_PASSWORD": token_hex(16),
        },
        "The Redis of the profile full.": {"REDIS_PASSWORD": token_hex(24)},
    }


def _sections(groups: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        why: "".join(f"{variable}={secret}\n" for variable, secret in group.items()) for why, group in groups.items()
    }
