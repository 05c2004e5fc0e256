import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from minion_settings import free_ports, ports

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_ports_are_free_and_found_once_though_nobody_has_bound_them() -> None:
    found = [port for _ in range(10) for port in free_ports(5)]
    assert len(set(found)) == 50
    for port in found:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.skipif(not _RANGE.exists(), reason="needs Linux' range of source ports")
def test_no_outgoing_connection_gets_one() -> None:
    first, last = map(int, _RANGE.read_text().split())
    assert not [port for port in free_ports(20) if first <= port <= last]


def test_processes_find_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Few, so that they would find the same ones; any few, so that two runs of this test on one machine don't meet.
    start = random.randrange(10_000, 32_000, 40)  # noqa: S311 - no secret
    few = range(start, start + 40)
    monkeypatch.setattr(ports, "_numbers", lambda: few)
    script = (
        "from minion_settings import ports\n"
        f"ports._numbers = lambda: {few!r}\n"
        "print(*ports.free_ports(15), flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ours = set(free_ports(15))
        other.stdin.write("\n")
    assert len(theirs) == len(ours) == 15
    assert not theirs & ours


def test_what_another_has_found_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setattr(ports, "_numbers", lambda: range(port, port + 1))
    tried: list[int] = []

    class Tried(socket.socket):
        def bind(self, address: Any) -> None:
            tried.append(self.type)
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Tried)
    with pytest.raises(OSError, match="no 1 free ports"):
        free_ports(1)
    # Whoever it was told binds it at any time, and one look from here would be in the way.
    assert tried == [socket.SOCK_DGRAM]


def test_what_somebody_listens_on_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        monkeypatch.setattr(ports, "_numbers", lambda: range(port, port + 1))
        with pytest.raises(OSError, match="no 1 free ports"):
            free_ports(1)
