"""Scrapes of a registry, as Prometheus makes them: over HTTP, in threads of the operations port."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

from minion_telemetry import OperationsServer
from prometheus_client import CollectorRegistry


def scrape(address: str) -> str:
    """Reads `/metrics` of an operations port; blocks. Fails where the answer isn't 200."""
    with closing(HTTPConnection(address, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    assert answer.status == 200, text
    return text


def scraped_meanwhile(registry: CollectorRegistry, work: Callable[[int], None], *, rounds: int) -> list[str]:
    """Scrapes a registry again and again while `work` is called with 0, 1, … in the thread of the caller.

    Threads take turns as often as they can, so that what is read halfway shows.
    """
    operations = OperationsServer("127.0.0.1", 0, registry, lambda: True)
    operations.start()
    texts: list[str] = []
    faults: list[BaseException] = []
    begun, over = threading.Event(), threading.Event()

    def scrapes() -> None:
        begun.set()
        try:
            # Once at least, however late this thread gets its turn.
            while not texts or not over.is_set():
                texts.append(scrape(f"127.0.0.1:{operations.port}"))
        except BaseException as fault:  # noqa: BLE001 - told to the caller
            faults.append(fault)

    scraper = threading.Thread(target=scrapes, name="scraper")
    try:
        with _taking_turns():
            scraper.start()
            # Not before it scrapes: all of the work may be done in the time that a busy machine takes to run a thread.
            assert begun.wait(60)
            for number in range(rounds):
                work(number)
            over.set()
            scraper.join(timeout=60)
        texts.append(scrape(f"127.0.0.1:{operations.port}"))
    finally:
        over.set()
        operations.stop()
    assert not faults, faults
    assert len(texts) > 1
    return texts


@contextmanager
def _taking_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
