"""What a development stack keeps on disk: its secrets, its data, and where it answers while it runs."""

import contextlib
import dataclasses
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minion_errors import FailedPrecondition

DEFAULT = Path(".minion")

_CREDENTIALS = "credentials.json"
_STACK = "stack.json"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Random secrets of one stack, made once; `api_key` and `tenant_id` follow when the tenant is seeded."""

    service_key: str
    operator_key: str
    database_password: str
    tenant_id: str = ""
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """Where a running stack answers: `host:port` by service."""

    pid: int
    addresses: Mapping[str, str]
    operations: Mapping[str, str]


class Directory:
    """The directory of one stack, `.minion` unless said otherwise."""

    def __init__(self, path: Path = DEFAULT) -> None:
        self.path = path.absolute()

    @property
    def postgres(self) -> Path:
        """Where the embedded Postgres keeps its data."""
        return self.path / "postgres"

    @property
    def models(self) -> Path:
        """Where the local embedding model is prepared."""
        return self.path / "models"

    @property
    def logs(self) -> Path:
        """Where logs go that are not shown."""
        return self.path / "logs"

    def prepare(self) -> None:
        """Makes the directory, and keeps it out of version control.

        Raises FailedPrecondition when it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as fault:
            raise FailedPrecondition(
                f"The directory {self.path} can't be used: {fault.strerror or fault}.", reason="DIRECTORY_UNUSABLE"
            ) from fault

    def credentials(self) -> Credentials:
        """Gives the stack's secrets; makes them when there are none yet."""
        found = self.find_credentials()
        if found is None:
            # Hexadecimal: the password also stands in connection strings.
            found = Credentials(
                service_key=secrets.token_hex(32),
                operator_key="mno_" + secrets.token_hex(32),
                database_password=secrets.token_hex(24),
            )
            self.save(found)
        return found

    def find_credentials(self) -> Credentials | None:
        """Gives the stack's secrets, or None when there are none. Raises FailedPrecondition when the file is broken."""
        content = self._read(_CREDENTIALS)
        return None if content is None else self._as(Credentials, _CREDENTIALS, content)

    def save(self, credentials: Credentials) -> None:
        """Writes the secrets, for this user's eyes alone."""
        self._write(_CREDENTIALS, dataclasses.asdict(credentials))

    def announce(self, stack: Stack) -> None:
        """Says where the stack answers, for the commands that follow."""
        self._write(_STACK, dataclasses.asdict(stack))

    def withdraw(self) -> None:
        """Takes back what `announce` said."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / _STACK).unlink()

    def find_stack(self) -> Stack | None:
        """Gives where the stack answers, or None when none runs."""
        content = self._read(_STACK)
        if content is None:
            return None
        stack = self._as(Stack, _STACK, content)
        return stack if _lives(stack.pid) else None

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as fault:
            raise FailedPrecondition(f"{path} can't be read: {fault}.", reason="DIRECTORY_UNUSABLE") from fault
        return content if isinstance(content, dict) else {}

    def _as(self, kind: type[_T], name: str, content: dict[str, Any]) -> _T:
        try:
            return kind(**content)
        except TypeError as fault:
            raise FailedPrecondition(
                f"{self.path / name} is not of this release: move it away, and a new one is made.",
                reason="DIRECTORY_UNUSABLE",
            ) from fault

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        # mkstemp makes the file 0600; renamed when whole, so that nobody ever reads a half.
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        Path(temporary).replace(self.path / name)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
