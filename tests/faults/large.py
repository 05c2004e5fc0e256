"""A tool whose result is too large for a message."""

from collections.abc import Callable
from typing import Any

from minion_gateway.tools.domain import Builtin, Invocation

LINE = "a line of a large result, as long as the others\n"


class Large:
    """Returns `bytes` bytes of text, 10 MB where they aren't given; the same each time."""

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns the text."""
        return large(int(invocation.arguments.get("bytes", 10_000_000)))


def large(size: int) -> str:
    """The text of so many bytes."""
    return (LINE * (size // len(LINE) + 1))[:size]


def with_large(builtins: Callable[..., dict[str, Builtin]]) -> Callable[..., dict[str, Builtin]]:
    """Puts the tool in the place of the calculator: a gateway has no others than the registry knows."""

    def changed(*peers: Any) -> dict[str, Builtin]:
        return {**builtins(*peers), "calculator": Large()}

    return changed
