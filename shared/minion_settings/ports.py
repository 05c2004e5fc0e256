"""Loopback ports for servers that nobody has given a number."""

import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

_LOWEST, _HIGHEST = 10_000, 65_535
# Where the kernel takes source ports from, unless it says otherwise.
_SOURCE_PORTS: Final = (32_768, 60_999)
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Fewer numbers are too few for several processes that pick at once.
_ENOUGH = 1_000
# Descriptors of UDP sockets, which tell other processes which numbers have been picked; the oldest are let go.
_HELD: Final[deque[int]] = deque()
_MOST_HELD = 128


def free_ports(count: int) -> list[int]:
    """Finds TCP ports that nobody listens on, that no other process has found lately, and that stay free.

    They are not among those which outgoing connections get: whoever is told one may take its time to bind it.

    Raises:
        OSError: there are not so many.
    """
    found: list[int] = []
    numbers = _numbers()
    for port in random.sample(numbers, len(numbers)):
        if len(found) == count:
            break
        if _take(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"there are no {count} free ports on 127.0.0.1")
    while len(_HELD) > max(_MOST_HELD, count):
        socket.close(_HELD.popleft())
    return found


def _numbers() -> range:
    first, last = _SOURCE_PORTS
    if _RANGE_FILE.exists():
        first, last = map(int, _RANGE_FILE.read_text().split())
    below, above = range(_LOWEST, first), range(last + 1, _HIGHEST + 1)
    return next((numbers for numbers in (below, above) if len(numbers) >= _ENOUGH), range(_LOWEST, _HIGHEST + 1))


def _take(port: int) -> bool:
    with socket.socket() as listener, socket.socket(type=socket.SOCK_DGRAM) as mark:
        try:
            # First of all: who was told this one may bind it right now, and would find it taken by this very look.
            mark.bind(("127.0.0.1", port))
            # On all addresses: a service may be told to listen beyond the loopback.
            listener.bind(("", port))
        except OSError:
            return False
        _HELD.append(mark.detach())
    return True
