import os
import socket
from pathlib import Path

import pytest
from minion_cli.development import ports
from minion_cli.development.directory import Directory, Stack
from minion_cli.development.launch import launched
from minion_cli.development.ports import Ports
from minion_errors import FailedPrecondition, Unavailable


def test_the_documented_ports_unless_the_environment_says_otherwise() -> None:
    assert ports.chosen({}) == ports.DOCUMENTED
    chosen = ports.chosen({"MINION_SESSION_PORT": "6000", "MINION_SESSION_OPERATIONS_PORT": "6001"})
    assert chosen["session"] == Ports(6000, 6001)
    assert chosen["memory"] == ports.DOCUMENTED["memory"]


def test_what_is_no_port_and_what_is_one_twice_are_told() -> None:
    environ = {"MINION_SESSION_PORT": "many", "MINION_MEMORY_PORT": "65536", "MINION_ACTIVITY_OPERATIONS_PORT": "50051"}
    assert [(fault.variable, fault.description) for fault in ports.faults(environ, ports.chosen(environ))] == [
        ("MINION_SESSION_PORT", "must be a number up to 65535 (is 'many')"),
        ("MINION_MEMORY_PORT", "must be a number up to 65535 (is '65536')"),
        ("MINION_ACTIVITY_OPERATIONS_PORT", "is 50051, and so is MINION_REGISTRY_PORT"),
    ]
    assert ports.faults({}, ports.DOCUMENTED) == []
    assert ports.faults({"MINION_ACTIVITY_OPERATIONS_PORT": "50051"}, ports.free()) == []


def test_free_ports_are_all_different_and_free() -> None:
    chosen = ports.free()
    assert len({port for pair in chosen.values() for port in (pair.rpc, pair.operations)}) == 10
    ports.check(chosen)


def test_every_port_in_use_is_named_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        chosen = {
            **ports.free(),
            "session": Ports(first.getsockname()[1], ports.free()["session"].operations),
            "memory": Ports(ports.free()["memory"].rpc, second.getsockname()[1]),
        }
        with pytest.raises(Unavailable) as refused:
            ports.check(chosen)
    assert refused.value.reason == "PORT_UNAVAILABLE"
    assert f"{chosen['session'].rpc} (session)" in refused.value.message
    assert f"{chosen['memory'].operations} (memory's operations)" in refused.value.message


async def test_ports_that_the_stack_of_the_directory_holds_are_told_as_that_stack(tmp_path: Path) -> None:
    directory = Directory(tmp_path / ".minion")
    with socket.create_server(("127.0.0.1", 0)) as held:
        chosen = {**ports.free(), "session": Ports(held.getsockname()[1], ports.free()["session"].operations)}
        with pytest.raises(Unavailable):
            await _start(directory, chosen)
        directory.announce(Stack(os.getpid(), {}, {}))
        with pytest.raises(FailedPrecondition) as refused:
            await _start(directory, chosen)
    assert refused.value.reason == "STACK_RUNNING"
    assert str(directory.path) in refused.value.message


async def _start(directory: Directory, chosen: dict[str, Ports]) -> None:
    async with launched(directory, ports=chosen, environ={}):
        pytest.fail("started on a port that was taken")
