"""The ports of a stack: the documented ones, or free ones."""

import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from minion_errors import Unavailable
from minion_settings import Fault, free_ports

_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one service listens."""

    rpc: int
    operations: int


# The documented ports, by service (docs/architecture.md).
DOCUMENTED: Mapping[str, Ports] = {
    "gateway": Ports(50050, 9050),
    "registry": Ports(50051, 9051),
    "session": Ports(50052, 9052),
    "memory": Ports(50053, 9053),
    "activity": Ports(50054, 9054),
}


def chosen(environ: Mapping[str, str]) -> dict[str, Ports]:
    """Gives each service's ports: the environment's (`MINION_SESSION_PORT`), else the documented ones."""
    return {
        service: Ports(
            _number(environ, f"MINION_{service.upper()}_PORT", documented.rpc),
            _number(environ, f"MINION_{service.upper()}_OPERATIONS_PORT", documented.operations),
        )
        for service, documented in DOCUMENTED.items()
    }


def free() -> dict[str, Ports]:
    """Picks ports that nobody uses now; another process may take one before we do, which is then said so."""
    numbers = iter(free_ports(2 * len(DOCUMENTED)))
    return {service: Ports(next(numbers), next(numbers)) for service in DOCUMENTED}


def check(ports: Mapping[str, Ports]) -> None:
    """Raises Unavailable that names every port in use, before anything is started."""
    taken = in_use(ports)
    if taken:
        listed = ", ".join(f"{port} ({owner})" for port, owner in taken)
        raise Unavailable(
            f"In use already: {'port' if len(taken) == 1 else 'ports'} {listed}. Stop what holds it, or take free "
            "ports with --free-ports.",
            reason="PORT_UNAVAILABLE",
            metadata={"ports": ",".join(str(port) for port, _ in taken)},
        )


def in_use(ports: Mapping[str, Ports]) -> Sequence[tuple[int, str]]:
    """Lists the ports that can't be bound on the loopback now, each with what it is for."""
    wanted = [(pair.rpc, service) for service, pair in ports.items()]
    wanted += [(pair.operations, f"{service}'s operations") for service, pair in ports.items()]
    return [(port, owner) for port, owner in wanted if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port that still waits after a restart is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as fault:
            return fault.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True


def faults(environ: Mapping[str, str], ports: Mapping[str, Ports]) -> list[Fault]:
    """Lists what is no port among those that the environment names, and what would be opened twice."""
    found: list[Fault] = []
    owners: dict[int, str] = {}
    for service, pair in ports.items():
        name = service.upper()
        for variable, port in ((f"MINION_{name}_PORT", pair.rpc), (f"MINION_{name}_OPERATIONS_PORT", pair.operations)):
            text = environ.get(variable, "")
            if text and not (text.isdecimal() and int(text) <= _LAST_PORT):
                found.append(Fault(variable, f"must be a number up to {_LAST_PORT} (is {text!r})"))
            owner = owners.setdefault(port, variable)
            if owner != variable:
                found.append(Fault(variable, f"is {port}, and so is {owner}"))
    return found


def _number(environ: Mapping[str, str], variable: str, documented: int) -> int:
    text = environ.get(variable, "")
    # What is no number is refused with all other faults.
    return int(text) if text.isdecimal() and 0 < int(text) <= _LAST_PORT else documented
