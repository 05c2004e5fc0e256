"""Who gets the candidate: a pure function of the session, as the contract states it."""

import hashlib
import itertools
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_gateway.agents.domain import AgentSnapshot, AgentStatus, Resolution, Rollout, takes_candidate

from tests.minion_gateway.runs.dead import agent

SALT = "01890a5d-ac96-774b-bcce-b302099a8057"
shares = st.integers(0, 10_000)


def sessions(count: int, seed: str = "") -> list[UUID]:
    """Ids as the session service makes them: version 7, of one moment after another."""
    made = []
    for number in range(count):
        random = int.from_bytes(hashlib.sha256(f"{seed}{number}".encode()).digest()[:10], "big")
        value = (0x0190_0000_0000 + number * 7) << 80 | random
        made.append(UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62))
    return made


# Also in docs/registry.md, for clients in other languages; made by `sha256sum` and `bc`, not by the code under test.
@pytest.mark.parametrize(
    ("salt", "session_id", "drawn"),
    [
        (SALT, "01890a5d-ac96-774b-bcce-b302099a8058", 7_959),
        (SALT, "01890a5d-ac96-774b-bcce-b302099a8059", 6_772),
        ("01890a5d-ac96-774b-bcce-b302099a8058", "01890a5d-ac96-774b-bcce-b302099a8058", 6_738),
        ("", "00000000-0000-0000-0000-000000000000", 7_846),
        ("salt", "ffffffff-ffff-ffff-ffff-ffffffffffff", 4_847),
    ],
)
def test_the_draw_is_that_of_the_contract(salt: str, session_id: str, drawn: int) -> None:
    assert not takes_candidate(salt, session_id, drawn)
    assert takes_candidate(salt, session_id, drawn + 1)


@pytest.mark.parametrize("salt", [SALT, "a", "b", "01890a5d-ac96-774b-bcce-b302099a8058"])
def test_a_tenth_is_a_tenth(salt: str) -> None:
    taken = [session for session in sessions(10_000) if takes_candidate(salt, str(session), 1_000)]
    # Within one percent of the sessions.
    assert abs(len(taken) / 10_000 - 0.1) <= 0.01


@given(st.uuids(), shares, shares)
def test_a_session_stays_with_the_candidate_as_its_share_grows(session: UUID, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert takes_candidate(SALT, str(session), less) <= takes_candidate(SALT, str(session), more)


@given(st.uuids())
def test_nobody_and_everybody(session: UUID) -> None:
    assert not takes_candidate(SALT, str(session), 0)
    assert takes_candidate(SALT, str(session), 10_000)


def test_another_rollout_tries_others() -> None:
    one, other = (
        {session for session in sessions(10_000) if takes_candidate(salt, str(session), 1_000)} for salt in ("a", "b")
    )
    # A tenth of a tenth by chance, not the same people each time.
    assert len(one & other) < 200


def test_a_turn_is_driven_by_what_its_session_drew() -> None:
    live, candidate = (AgentSnapshot.of(agent(name=name)) for name in ("live", "candidate"))
    resolution = Resolution(AgentStatus.ACTIVE, live, Rollout(UUID(int=1), 5_000, SALT, candidate))
    drawn = [resolution.snapshot_for(session) for session in sessions(100)]
    assert drawn == [candidate if takes_candidate(SALT, str(session), 5_000) else live for session in sessions(100)]
    assert len(set(map(id, drawn))) == 2
    over = Resolution(AgentStatus.ACTIVE, live)
    assert {id(over.snapshot_for(session)) for session in sessions(10)} == {id(live)}


def test_the_ids_of_these_tests_are_different() -> None:
    made = sessions(10_000)
    assert len(set(made)) == 10_000
    assert {session.version for session in made} == {7}
    assert all(one < other for one, other in itertools.pairwise(made))
