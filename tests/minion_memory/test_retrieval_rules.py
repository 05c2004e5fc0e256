"""What a query says of the memory that it wants, and how accesses are counted; no server, no database."""

from uuid import uuid4

import pytest
from minion_memory.retrieval.domain import AccessLog, Shares, Signs, in_first_person, signs

NONE = Signs(asks_when=False, months=(), years=())


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("Which tea does she like?", NONE),
        ("When did she move?", Signs(asks_when=True, months=(), years=())),
        ("How long has she lived there?", Signs(asks_when=True, months=(), years=())),
        ("What did she buy in May 2023?", Signs(asks_when=False, months=(5,), years=(2023,))),
        ("what happened in june or july?", Signs(asks_when=False, months=(6, 7), years=())),
        ("May I march along?", NONE),
        ("She may march.", NONE),
        ("In March?", Signs(asks_when=False, months=(3,), years=())),
        ("", NONE),
    ],
)
def test_signs_of_a_query_are_read(query: str, read: Signs) -> None:
    assert signs(query) == read


@pytest.mark.parametrize(
    ("query", "names", "read"),
    [
        ("When did Ann move?", ["Ann"], "When did I move?"),
        ("What is Ann\u2019s dog called?", ["Ann"], "What is my dog called?"),
        ("Annie and ANN", ["Ann"], "Annie and I"),
        ("Ann Lee's tea, and Ann", ["Ann", "Ann Lee"], "my tea, and I"),
        ("What is (x)?", ["(x"], "What is (x)?"),
        ("When?", [], "When?"),
    ],
)
def test_names_give_way_to_the_first_person(query: str, names: list[str], read: str) -> None:
    assert in_first_person(query, names) == read


def test_shares_sum_to_the_score() -> None:
    assert Shares(1, 2, 3, -4, 5, 6, 7, 8).score == 28


def test_access_log_counts_by_tenant_and_is_emptied() -> None:
    log = AccessLog(10)
    ann, bob, tea, car = uuid4(), uuid4(), uuid4(), uuid4()
    log.note(ann, [tea, car])
    log.note(ann, [tea])
    log.note(bob, [tea])
    log.note(bob, [])
    assert dict(log.take()) == {ann: {tea: 2, car: 1}, bob: {tea: 1}}
    assert log.take() == []


def test_access_log_holds_no_more_than_it_may() -> None:
    log = AccessLog(2)
    tenant_id, ids = uuid4(), [uuid4() for _ in range(5)]
    log.note(tenant_id, ids)
    log.note(tenant_id, ids)
    log.note(uuid4(), ids)
    assert log.take() == [(tenant_id, {ids[0]: 2, ids[1]: 2})]
    log.note(tenant_id, ids)
    assert log.take() == [(tenant_id, {ids[0]: 1, ids[1]: 1})]
