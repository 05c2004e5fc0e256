"""Reads lists page by page, as far as the caller wants."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

_M = TypeVar("_M", bound=Message)

_LARGEST_PAGE = 500


async def take(
    method: Callable[[Any], Awaitable[Any]], request: Any, field: str, kind: type[_M], limit: int
) -> list[_M]:
    """Calls a list method until `limit` items of its repeated `field` are read, or there are no more."""
    found: list[_M] = []
    while True:
        request.page_size = min(limit - len(found), _LARGEST_PAGE)
        response = await method(request)
        found.extend(item for item in getattr(response, field) if isinstance(item, kind))
        request.page_token = response.next_page_token
        if not request.page_token or len(found) >= limit:
            return found
