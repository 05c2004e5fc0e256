"""How recalled memories stand in a system message: a heading and one line each.

Real models read it as any text; the local stand-in finds them in it.
"""

from collections.abc import Iterable

_HEADING = "What you remember about this user, from earlier conversations:"
_BULLET = "- "


def render(memories: Iterable[str]) -> str:
    """Returns the section, or nothing where there are no memories. Each memory becomes one line."""
    lines = [_BULLET + " ".join(memory.split()) for memory in memories if memory.strip()]
    return "\n".join([_HEADING, *lines]) if lines else ""


def parse(text: str) -> list[str]:
    """Returns the memories of the section in a text."""
    _, found, section = text.partition(_HEADING + "\n")
    memories: list[str] = []
    for line in section.splitlines() if found else []:
        if not line.startswith(_BULLET):
            break
        memories.append(line.removeprefix(_BULLET))
    return memories
