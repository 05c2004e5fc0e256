"""The table of permissions and the contract name the same RPCs."""

import importlib
from pathlib import Path

import minion
from google.protobuf.descriptor import FileDescriptor
from minion_auth import RULES, CallerKind


def contract() -> set[str]:
    """Lists every RPC of the generated stubs."""
    names = set()
    root = Path(next(iter(minion.__path__)))
    for path in root.rglob("*_pb2.py"):
        module = ".".join(["minion", *path.relative_to(root).with_suffix("").parts])
        file: FileDescriptor = importlib.import_module(module).DESCRIPTOR
        for service in file.services_by_name.values():
            names |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return names


def test_every_rpc_has_a_row_and_no_row_is_left_over() -> None:
    rpcs = contract()
    assert len(rpcs) > 40
    assert rpcs - set(RULES) == set()
    assert set(RULES) - rpcs == set()


def test_every_row_names_a_permission_and_lets_somebody_call() -> None:
    for rule in RULES.values():
        noun, _, verb = rule.permission.partition(".")
        assert noun
        assert verb in {"read", "write", "admin", "use", "verify", "erase"}
        assert rule.callers


def test_what_administers_is_closed_to_services() -> None:
    for rule in RULES.values():
        if rule.permission.endswith(".admin"):
            assert CallerKind.SERVICE not in rule.callers
