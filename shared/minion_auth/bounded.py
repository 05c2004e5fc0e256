"""A bounded mapping: whoever sends a million credentials makes us remember some thousands."""

from collections import OrderedDict
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class BoundedCache(Generic[_K, _V]):
    """Keeps the entries written last, up to a size."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._entries: OrderedDict[_K, _V] = OrderedDict()
        self._size = size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: _K) -> _V | None:
        """Gives the entry, or None."""
        return self._entries.get(key)

    def put(self, key: _K, value: _V) -> None:
        """Writes an entry; beyond the size, the one written longest ago goes."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, key: _K) -> None:
        """Removes an entry, if it is there."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Removes every entry."""
        self._entries.clear()
