"""The local embedding model, against the same model in plain numpy."""

import asyncio
import gc
import math
import time
from pathlib import Path

import numpy as np
import pytest
from minion_errors import Unavailable
from minion_gateway.inference.embedders import graph
from minion_gateway.inference.embedders.local import LocalEmbedder

from tests.minion_gateway.inference.reference_model import ReferenceModel

# The model is made and loaded here.
pytestmark = pytest.mark.slow

TEXTS = [
    "My favourite colour is teal.",
    "What is my favourite colour?",
    "The train to Vienna leaves at seven in the evening.",
    "When does my train go?",
    "She is allergic to peanuts and carries an injector.",
    "Which food must be avoided?",
    "Ünïcödé, 漢字 and an emoji 🚂 in one text",
    "word " * 120,
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    graph.write_graph(directory)
    return directory


@pytest.fixture(scope="module")
async def embedder(cache: Path) -> LocalEmbedder:
    return LocalEmbedder(cache)


async def test_vectors_are_those_of_the_32_bit_model(embedder: LocalEmbedder) -> None:
    reference = ReferenceModel()
    expected = np.stack([reference.embed(text) for text in TEXTS])
    embeddings = await embedder.embed(TEXTS)
    found = np.stack([np.asarray(vector) for vector in embeddings.vectors])
    cosines = (expected * found).sum(axis=1)
    assert cosines.min() > 0.95
    assert cosines.mean() > 0.985
    # What counts is the order that they put texts in.
    assert np.abs(expected @ expected.T - found @ found.T).mean() < 0.02


async def test_questions_find_their_answers(embedder: LocalEmbedder) -> None:
    vectors = np.stack([np.asarray(vector) for vector in (await embedder.embed(TEXTS[:6])).vectors])
    answers, questions = vectors[::2], vectors[1::2]
    assert (questions @ answers.T).argmax(axis=1).tolist() == [0, 1, 2]


async def test_a_vector_depends_on_its_text_alone(embedder: LocalEmbedder) -> None:
    together = await embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, together.vectors, strict=True):
        [alone] = (await embedder.embed([text])).vectors
        assert alone == vector
    assert all(len(vector) == 384 and abs(math.hypot(*vector) - 1) < 1e-5 for vector in together.vectors)


async def test_a_long_text_stands_for_its_beginning(embedder: LocalEmbedder) -> None:
    embeddings = await embedder.embed(["short", "word " * 300, "word " * 254])
    assert embeddings.truncated == 1
    assert embeddings.vectors[1] == embeddings.vectors[2]
    assert embeddings.usage.input_tokens == 3 + 256 + 256


async def test_an_empty_list_needs_nothing(embedder: LocalEmbedder) -> None:
    assert (await embedder.embed([])).vectors == ()


async def test_the_loop_stays_free_and_a_query_is_not_kept_waiting(embedder: LocalEmbedder) -> None:
    await embedder.embed(["warm"])
    worst, beats = 0.0, 0

    async def watch() -> None:
        nonlocal worst, beats
        while True:
            # Of the loop's own thread: a busy machine makes it wait, which is no stall.
            begun = time.thread_time()
            await asyncio.sleep(0.002)
            worst, beats = max(worst, time.thread_time() - begun), beats + 1

    # What all tests together have left takes the collector a fifth of a second, in whatever thread it is due.
    gc.disable()
    try:
        watching = asyncio.create_task(watch())
        bulk = asyncio.create_task(embedder.embed(["word " * 200] * 60))
        await asyncio.sleep(0)
        await embedder.embed(["a query"])
        assert not bulk.done()
        await bulk
        watching.cancel()
    finally:
        gc.enable()
    assert worst < 0.05
    assert beats > 10


async def test_the_graph_is_written_once_by_any_number_of_writers(tmp_path: Path) -> None:
    first, second = LocalEmbedder(tmp_path / "models"), LocalEmbedder(tmp_path / "models")
    one, two = await asyncio.gather(first.embed(["hello"]), second.embed(["hello"]))
    assert one.vectors == two.vectors
    assert [path.name for path in (tmp_path / "models").iterdir()] == [graph.graph_path(tmp_path).name]
    await first.close()
    await second.close()


async def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as failed:
        await LocalEmbedder(tmp_path / "file" / "models").embed(["hello"])
    assert failed.value.reason == "PROVIDER_UNAVAILABLE"
    assert failed.value.metadata["setting"] == "MINION_MODEL_CACHE"
