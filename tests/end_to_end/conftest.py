"""One stack for all end-to-end tests, with a collector for its spans; the model's files are made once."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.collector import Collector, collecting
from tests.end_to_end.stacks import RunningStack, dev, environ


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks the tests of this folder: their stacks bring a Postgres along, which `make check` does without."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.postgres)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the embedded Postgres' own user can get to, when we are root; pytest's own are closed to it."""
    with _open_directory() as directory:
        yield directory


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """Lets services that share the tests' own loop wait for the registry for as long as that may stand still.

    In two seconds it is away for them: who has never called is then refused, and who was seen gets in.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minion_grpc.verification._TIMEOUT_SECONDS", 60.0)
        yield


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where every stack of the session finds the embedding model."""
    return str(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def plain_environ(model_cache: str) -> dict[str, str]:
    """The environment of a fresh terminal, but for the prepared model."""
    return environ(MINION_MODEL_CACHE=model_cache)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    """Takes the spans of the shared stack."""
    async with collecting() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(plain_environ: dict[str, str], collector: Collector) -> AsyncIterator[RunningStack]:
    """A `minion dev` that all tests of the session share."""
    env = {
        **plain_environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        # So that a command that watches until it is synced is soon through.
        "MINION_SESSION_WATCH_SYNC_SECONDS": "0.5",
    }
    with _open_directory() as directory:
        async with dev(directory / ".minion", env=env) as running:
            yield running


@contextmanager
def _open_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="minion-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
