"""Embeddings made here, by all-MiniLM-L6-v2 in 8 bits on one thread.

Each text runs alone: without padding its vector depends on nothing but itself, and on one core a batch would gain
nothing (a text of 24 words takes 2 ms).
"""

import asyncio
import sys
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minion_errors import Unavailable

from minion_gateway.inference.domain import Embeddings, Usage
from minion_gateway.inference.embedders import graph
from minion_gateway.inference.embedders.graph import DIMENSIONS, ModelFilesError, graph_path, model_directory

MODEL = "local/all-minilm-l6-v2"
MAXIMUM_TOKENS = 256
# Texts of one turn at the thread: a query waits behind no more than these of a large request.
_TEXTS_A_TURN = 4
_BUILD_SECONDS = 60.0


class LocalEmbedder:
    """An `Embedder` that needs no network. The first `embed` (or `start`) prepares the model."""

    model = MODEL
    dimensions = DIMENSIONS

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._starting = asyncio.Lock()
        self._running: _Running | None = None

    async def start(self) -> None:
        """Writes the graph where the cache has none (about a second) and loads it (0.15 s).

        Raises Unavailable / PROVIDER_UNAVAILABLE when it can't be written or read.
        """
        async with self._starting:
            if self._running is not None:
                return
            if not await asyncio.to_thread(graph_path(self._cache).exists):
                await self._write_graph()
            loop = asyncio.get_running_loop()
            try:
                self._running = await loop.run_in_executor(self._thread, _Running, graph_path(self._cache))
            except ModelFilesError as error:
                raise _unprepared(str(error)) from error

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Returns one vector a text; of a text longer than 256 tokens, of its first 256."""
        if self._running is None:
            await self.start()
        assert self._running is not None
        loop = asyncio.get_running_loop()
        vectors: list[array[float]] = []
        tokens = truncated = 0
        for start in range(0, len(texts), _TEXTS_A_TURN):
            turn = texts[start : start + _TEXTS_A_TURN]
            for vector, read, cut in await loop.run_in_executor(self._thread, self._running.embed, turn):
                vectors.append(vector)
                tokens += read
                truncated += cut
        return Embeddings(tuple(vectors), MODEL, DIMENSIONS, Usage(input_tokens=tokens), truncated)

    async def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write_graph(self) -> None:
        # A process of its own: the build would stall the loop and leave 200 MB behind. By its file, so that it runs
        # wherever this package does; -P keeps this directory's names (`openai`) out of its imports.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            graph.__file__,
            str(self._cache),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_BUILD_SECONDS):
                _, said = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
            raise _unprepared(last[0])


def _unprepared(why: str) -> Unavailable:
    return Unavailable(
        f"The local embedding model can't be prepared: {why}",
        reason="PROVIDER_UNAVAILABLE",
        metadata={"setting": "MINION_MODEL_CACHE", "charged": "no"},
    )


class _Running:
    """The loaded model; lives in the embedder's thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - 70 MB and 0.1 s, for those alone who embed
        import tokenizers  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        # The loop needs the other core: leases are renewed while this computes.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._tokenizer = tokenizers.Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAXIMUM_TOKENS)

    def embed(self, texts: Sequence[str]) -> list[tuple["array[float]", int, bool]]:
        """Returns each text's vector, the tokens read, and whether it had more."""
        import numpy as np  # noqa: PLC0415

        results = []
        for text in texts:
            encoded = self._tokenizer.encode(text)
            ids = np.array([encoded.ids], dtype=np.int64)
            (vectors,) = self._session.run(None, {"ids": ids})
            results.append((array("f", vectors[0].tobytes()), len(encoded.ids), bool(encoded.overflowing)))
        return results
