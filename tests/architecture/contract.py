"""The contract as the tests see it: every service and method of the committed stubs."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import EnumDescriptor, FileDescriptor, MethodDescriptor

ROOT = Path(__file__).parents[2]


def files() -> Iterator[FileDescriptor]:
    """Yields the descriptor of every proto file of ours."""
    for path in sorted((ROOT / "shared" / "minion").rglob("*_pb2.py")):
        name = ".".join(path.relative_to(ROOT / "shared").with_suffix("").parts)
        yield importlib.import_module(name).DESCRIPTOR


def methods() -> list[MethodDescriptor]:
    """Returns every RPC of the contract."""
    return [method for file in files() for service in file.services_by_name.values() for method in service.methods]


def reasons() -> set[str]:
    """Returns every error reason of the contract, without the prefix."""
    enums: list[EnumDescriptor] = [enum for file in files() for enum in file.enum_types_by_name.values()]
    return {
        value.name.removeprefix("ERROR_REASON_")
        for enum in enums
        if enum.name == "ErrorReason"
        for value in enum.values
    }
