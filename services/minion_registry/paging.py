"""Pages that fit into one message, whatever the size of what they hold, and where the next one begins."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from minion_postgres import pages

# gRPC clients take 4 MiB by default.
MAXIMUM_BYTES: Final = 3 * 1024 * 1024

# Where something stands in a list of the newest first: by create time, then id. Pages go backwards from NEWEST.
Place = tuple[datetime, UUID]
NEWEST: Final[Place] = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))


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


def place(token: str, filters: Mapping[str, object]) -> Place:
    """Reads the place that a page begins before; the empty token begins with the newest.

    Raises InvalidArgument (PAGE_TOKEN_INVALID).
    """
    if not token:
        return NEWEST
    create_time, identifier = pages.decode(token, filters, (datetime, UUID))
    if not (isinstance(create_time, datetime) and isinstance(identifier, UUID)):
        raise pages.refused("PAGE_TOKEN_INVALID", "page_token")
    return create_time, identifier
