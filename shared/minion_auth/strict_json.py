"""JSON from strangers: one meaning or none. Names that stand twice, NaN, infinities and endless depth are refused."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn


def loads(text: str | bytes) -> Any:
    """Reads a JSON document.

    Raises:
        ValueError: it is none, or readers could differ over what it says.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(decoded, object_pairs_hook=_distinct, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
