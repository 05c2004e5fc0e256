"""What becomes of what was drawn: the same stays, the later wins, likeness ends nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from minion_memory.extraction.domain import Drawn, Job, JobState, Proposal, Trigger
from minion_memory.extraction.planning import Planned, Step, plan
from minion_memory.memories.domain import Memory, MemoryType, Source, Trust

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOME = "user/home"


def job() -> Job:
    return Job(
        job_id=uuid4(),
        session_id=uuid4(),
        agent_id=uuid4(),
        user_id="ann",
        extractor="facts-1",
        trigger=Trigger.REQUESTED,
        principal="key:test",
        state=JobState.RUNNING,
        first_sequence=1,
        last_sequence=9,
        attempt_count=1,
        error="",
        created_count=0,
        updated_count=0,
        deleted_count=0,
        unchanged_count=0,
        refused_count=0,
        touched=(),
        create_time=NOON,
        update_time=NOON,
    )


def drawn(
    content: str, key: str = HOME, *, trust: Trust = Trust.USER, at: datetime = NOON, supersedes: bool = False
) -> Drawn:
    proposal = Proposal(MemoryType.FACT, key, content, content, (1,), 0.5, 0.9, None, supersedes)
    return Drawn(proposal, content, "ann", trust, at, at)


def known(content: str, key: str = HOME, **fields: Any) -> Memory:
    memory = Memory(
        memory_id=uuid4(),
        agent_id=uuid4(),
        user_id="ann",
        key=key,
        type=MemoryType.FACT,
        content=content,
        speaker="ann",
        importance=0.5,
        confidence=0.9,
        trust=Trust.USER,
        labels={"mine": "yes"},
        metadata={"mine": 1},
        source=Source(),
        valid_until=None,
        valid_from=NOON - timedelta(days=9),
        occur_time=NOON - timedelta(days=9),
        embedding_model="",
        create_time=NOON,
        update_time=NOON,
        superseded_by=None,
        access_count=0,
        access_time=None,
        revision=1,
    )
    return replace(memory, **fields)


def steps(*said: Drawn, there: Memory | None = None) -> list[Planned]:
    return plan(said, {there.key: there} if there else {}, job())


def test_what_is_new_is_created_and_what_is_known_is_kept() -> None:
    [created] = steps(drawn("Lives in Rome."))
    assert created.step is Step.CREATE
    there = known("lives in  ROME")
    [kept] = steps(drawn("Lives in Rome."), there=there)
    assert (kept.step, kept.memory_id, kept.stored) == (Step.KEEP, there.memory_id, None)


def test_a_correction_supersedes_and_another_wording_revises() -> None:
    there = known("Lives in Rome.")
    [superseding] = steps(drawn("Lives in Paris.", supersedes=True), there=there)
    assert (superseding.step, superseding.ended) == (Step.SUPERSEDE, there.memory_id)
    assert superseding.memory_id != there.memory_id
    [revised] = steps(drawn("Lives in the city of Rome."), there=there)
    assert (revised.step, revised.memory_id) == (Step.REVISE, there.memory_id)
    assert revised.stored is not None
    assert revised.stored.labels == {"mine": "yes", "minion.extractor": "facts-1"}
    assert revised.stored.metadata == {"mine": 1}


def test_a_memory_with_as_many_labels_as_may_be_gets_none_more() -> None:
    full = {f"label-{number}": "yes" for number in range(32)}
    [revised] = steps(drawn("Lives in the city of Rome."), there=known("Lives in Rome.", labels=full))
    assert revised.stored is not None
    assert revised.stored.labels == full


def test_what_was_said_earlier_changes_nothing() -> None:
    there = known("Lives in Paris.", occur_time=NOON)
    earlier = NOON - timedelta(days=1)
    for supersedes in (True, False):
        [kept] = steps(drawn("Lives in Rome.", at=earlier, supersedes=supersedes), there=there)
        assert kept.step is Step.KEEP


def test_a_tool_changes_nothing_that_the_user_or_a_program_said() -> None:
    for trust in (Trust.USER, Trust.ASSERTED):
        [kept] = steps(drawn("Lives in Oslo.", trust=Trust.TOOL, supersedes=True), there=known("Rome.", trust=trust))
        assert kept.step is Step.KEEP
    [superseding] = steps(
        drawn("Lives in Oslo.", trust=Trust.TOOL, supersedes=True), there=known("Rome.", trust=Trust.TOOL)
    )
    assert superseding.step is Step.SUPERSEDE


def test_trust_rises_when_the_user_says_so_and_never_falls() -> None:
    [risen] = steps(drawn("Rome."), there=known("Rome.", trust=Trust.TOOL))
    assert risen.stored is not None
    assert (risen.step, risen.stored.trust) == (Step.REVISE, Trust.USER)
    [kept] = steps(drawn("Rome.", trust=Trust.TOOL), there=known("Rome."))
    assert kept.step is Step.KEEP


def test_what_is_said_twice_in_one_stretch_is_followed() -> None:
    later = NOON + timedelta(minutes=1)
    first, second = steps(drawn("Lives in Paris.", at=later, supersedes=True), drawn("Lives in Rome."))
    assert (first.step, second.step) == (Step.CREATE, Step.SUPERSEDE)
    assert second.ended == first.memory_id


def test_another_key_is_another_thing() -> None:
    there = known("Likes green tea.", key="user/likes/green-tea")
    [created] = steps(drawn("Likes green tea!", key="user/likes/black-tea", supersedes=True), there=there)
    assert created.step is Step.CREATE


def test_what_had_ended_and_is_said_again_begins_anew() -> None:
    ended = known("Lives in Rome.", valid_until=NOON - timedelta(days=1))
    [anew] = steps(drawn("Lives in Rome."), there=ended)
    assert (anew.step, anew.ended) == (Step.SUPERSEDE, ended.memory_id)
    [kept] = steps(drawn("Lives in Rome.", at=NOON - timedelta(days=2)), there=ended)
    assert kept.step is Step.KEEP
    merged = replace(ended, superseded_by=UUID(int=7))
    [stands] = steps(drawn("Lives in Rome."), there=merged)
    assert stands.step is Step.KEEP


_STATEMENTS = st.lists(
    st.tuples(
        st.sampled_from(["user/home", "user/name"]),
        st.sampled_from(["Rome.", "Paris.", "Oslo."]),
        st.sampled_from(list(Trust)),
        st.booleans(),
    ),
    max_size=12,
)


@given(_STATEMENTS)
def test_whatever_is_said_no_key_touches_another_and_nothing_is_drawn_twice(
    statements: list[tuple[str, str, Trust, bool]],
) -> None:
    said = [
        drawn(content, key, trust=trust, at=NOON + timedelta(minutes=number), supersedes=supersedes)
        for number, (key, content, trust, supersedes) in enumerate(statements)
    ]
    standing: dict[str, Any] = {}
    for one, step in zip(said, plan(said, {}, job()), strict=True):
        before = standing.get(one.proposal.key)
        if step.step is Step.KEEP:
            assert before is not None
            continue
        assert step.stored is not None
        assert step.stored.key == one.proposal.key
        if before is None:
            assert step.step is Step.CREATE
        else:
            # What is trusted less changes nothing.
            ranks = [Trust.TOOL, Trust.ASSERTED, Trust.USER]
            assert ranks.index(step.stored.trust) >= ranks.index(before.trust)
            assert (step.ended if step.step is Step.SUPERSEDE else step.memory_id) == before.memory_id
        standing[one.proposal.key] = step.stored
    # The whole stretch once more changes nothing.
    assert {step.step for step in plan(said, standing, job())} <= {Step.KEEP}
