"""Seams at which the fault suite kills or pauses the process; in the product nobody observes them."""

from collections.abc import Callable

# In the order in which a turn passes them. The fault suite loops over all.
POINTS = (
    "accept.before",
    "accept.after",
    "begin.before",
    "begin.appended",
    "begin.after",
    "llm.before",
    "llm.answering",
    "llm.answered",
    "llm.committed",
    "events.before",
    "events.committed",
    "tools.before",
    "blob.before",
    "blob.stored",
    "tools.done",
    "tools.committed",
    "append.before",
    "append.done",
    "complete.before",
    "complete.after",
    "summary.before",
    "summary.asking",
    "summary.answered",
    "summary.committed",
    "summary.saved",
    "summary.done",
    "outbox.before",
    "outbox.sent",
    "outbox.deleted",
)

_observers: list[Callable[[str], None]] = []


def point(name: str) -> None:
    """Tells the observer, where there is one, that the code has come to this point."""
    for observer in _observers:
        observer(name)


def observe(observer: Callable[[str], None]) -> None:
    """Installs an observer, for the rest of the process; for the fault suite's launcher alone."""
    _observers.append(observer)
