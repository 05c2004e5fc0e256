"""What `minion memories search --explain` tells a person."""

from google.protobuf.timestamp_pb2 import Timestamp
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion_cli.explanations import explained


def test_each_hit_says_what_its_score_is_made_of_and_where_it_was_said() -> None:
    said = memory_pb2.Memory(
        memory_id="m-1",
        type=memory_pb2.MEMORY_TYPE_CONTEXT,
        content="I started to learn\nthe cello.",
        speaker="Bob",
        trust=memory_pb2.MEMORY_TRUST_USER,
        source=memory_pb2.MemorySource(session_id="s-1", message_sequences=[6], quote="the cello"),
        occur_time=Timestamp(seconds=1_684_000_000),
    )
    found = pb.SearchMemoriesResponse(
        hits=[
            memory_pb2.MemoryHit(
                memory=said,
                score=0.75,
                similarity=0.8,
                explanation=memory_pb2.ScoreExplanation(semantic=0.4, lexical=0.45, cues=-0.1, recency=0.0001),
            ),
            memory_pb2.MemoryHit(
                memory=memory_pb2.Memory(memory_id="m-2", type=memory_pb2.MEMORY_TYPE_FACT, content="x")
            ),
        ],
        plan=memory_pb2.SEARCH_PLAN_HNSW_THEN_EXACT,
        scope_count=40,
    )
    lines = list(explained(found))
    assert lines[0] == "plan hnsw then exact · 2 of 40 memories of this agent and user"
    assert lines[2:5] == [
        " 0.750 I started to learn the cello.",
        "       semantic +0.400 · lexical +0.450 · cues -0.100 · similarity 0.800",
        "       context m-1 · said by Bob · at 2023-05-13 17:46:40 UTC · trust user"
        " · session s-1 · message 6 · “the cello”",
    ]
    assert lines[7] == "       no vector to compare"


def test_nothing_found_still_says_how_it_was_looked_for() -> None:
    found = pb.SearchMemoriesResponse(plan=memory_pb2.SEARCH_PLAN_LEXICAL, scope_count=3)
    assert list(explained(found)) == ["plan lexical · 0 of 3 memories of this agent and user"]
