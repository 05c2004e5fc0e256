"""Embeddings by OpenAI's protocol."""

import math
import sys
from array import array
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import orjson

from minion_gateway.inference.domain import Embeddings, Usage
from minion_gateway.inference.estimator import estimate_text
from minion_gateway.inference.faults import answer_invalid
from minion_gateway.inference.providers.openai_connection import OpenAIConnection

_PATH = "/embeddings"


class OpenAIEmbedder:
    """An `Embedder` over a connection that the chat provider shares and closes.

    `name` is the provider's own name of the model, `dimensions` the length of its vectors; another length in an answer
    is an error, because vectors of different models never meet.
    """

    def __init__(self, connection: OpenAIConnection, name: str, dimensions: int) -> None:
        self._connection = connection
        self._name = name
        self._dimensions = dimensions

    @property
    def model(self) -> str:
        """The model's full name."""
        return f"openai/{self._name}"

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""
        return self._dimensions

    async def start(self) -> None:
        """Loads the client."""
        await self._connection.start()

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Returns one vector a text, in order; see `openai_faults` for what is raised."""
        # Base64 is a quarter of the bytes of numbers in JSON and is read a hundred times faster.
        body = orjson.dumps({"model": self._name, "input": list(texts), "encoding_format": "base64"})
        content = await self._connection.post(_PATH, body, model=self._name)
        try:
            answer = orjson.loads(content)
            items = sorted(answer["data"], key=lambda item: int(item["index"]))
            vectors = tuple(_vector(item["embedding"]) for item in items)
            counted = (answer.get("usage") or {}).get("prompt_tokens")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise answer_invalid("The provider's answer holds no embeddings.") from error
        if len(vectors) != len(texts) or any(len(vector) != self._dimensions for vector in vectors):
            raise answer_invalid(f"The provider's embeddings are not {len(texts)} of {self._dimensions} numbers.")
        usage = (
            Usage(sum(estimate_text(text) for text in texts), estimated=True)
            if counted is None
            else Usage(int(counted))
        )
        return Embeddings(vectors, self.model, self._dimensions, usage)

    async def close(self) -> None:
        """Leaves the connection to its owner."""


def _vector(value: Any) -> "array[float]":
    """Reads base64 of little-endian floats, or a list of numbers, and makes it of length 1."""
    if isinstance(value, str):
        vector = array("f", b64decode(value, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
    else:
        vector = array("f", value)
    length = math.hypot(*vector)
    if not math.isfinite(length) or length == 0:
        raise ValueError("a vector has a direction")
    return vector if abs(length - 1) < 1e-4 else array("f", (number / length for number in vector))
