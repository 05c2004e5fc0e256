"""Pages that fit into one message, whatever the size of what they hold."""

from collections.abc import Sequence
from typing import Final

# gRPC clients take 4 MiB by default.
MAXIMUM_BYTES: Final = 3 * 1024 * 1024


def fitting(sizes: Sequence[int], count: int) -> int:
    """Tells how many of the first items make a page: at most `count`, at most 3 MiB, and one in any case.

    `sizes` are the items' bytes on the wire, in order.
    """
    total = 0
    for index, size in enumerate(sizes[:count]):
        total += size
        if total > MAXIMUM_BYTES and index:
            return index
    return min(count, len(sizes))
