"""Why a search brought what it brought, for people."""

from collections.abc import Iterator

from minion.memory.v1 import memory_pb2, memory_service_pb2

from minion_cli import output

_INDENT = " " * 7
_PARTS = tuple(field.name for field in memory_pb2.ScoreExplanation.DESCRIPTOR.fields)


def explained(found: memory_service_pb2.SearchMemoriesResponse) -> Iterator[str]:
    """Gives lines: how the search was carried out; then of each hit what its score is made of and where it was said."""
    plan = output.enum_text(memory_pb2.SearchPlan, found.plan).replace("_", " ")
    yield f"plan {plan} · {len(found.hits)} of {found.scope_count} memories of this agent and user"
    for hit in found.hits:
        yield ""
        yield f"{hit.score:6.3f} {output.one_line(hit.memory.content)}"
        yield _INDENT + " · ".join(_shares(hit))
        yield _INDENT + " · ".join(_origin(hit.memory))


def _shares(hit: memory_pb2.MemoryHit) -> Iterator[str]:
    for part in _PARTS:
        share = getattr(hit.explanation, part)
        if round(share, 3):
            yield f"{part} {share:+.3f}"
    yield f"similarity {hit.similarity:.3f}" if hit.HasField("similarity") else "no vector to compare"


def _origin(memory: memory_pb2.Memory) -> Iterator[str]:
    yield f"{output.enum_text(memory_pb2.MemoryType, memory.type)} {memory.memory_id}"
    if memory.speaker:
        yield f"said by {output.one_line(memory.speaker)}"
    yield f"at {output.time_text(memory.occur_time)} UTC"
    yield f"trust {output.enum_text(memory_pb2.MemoryTrust, memory.trust)}"
    if memory.source.session_id:
        yield f"session {memory.source.session_id}"
    if memory.source.message_sequences:
        yield "message " + ", ".join(str(sequence) for sequence in memory.source.message_sequences)
    if memory.source.quote:
        yield f"“{output.one_line(memory.source.quote)}”"
