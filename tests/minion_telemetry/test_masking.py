import time
from uuid import uuid4

import pytest
from minion_telemetry import mask, masking


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.smith+news@mail.example.co.uk now", "write to [EMAIL] now"),
        ("jörg@exämple.de", "[EMAIL]"),
        ("<bob@example.com>,eve@example.org", "<[EMAIL]>,[EMAIL]"),
        ("call +49 30 1234567 today", "call [PHONE] today"),
        ("call +1 (555) 123-4567", "call [PHONE]"),
        ("(555) 123-4567 or 555-123-4567", "[PHONE] or [PHONE]"),
        ("030 1234567", "[PHONE]"),
        ("card 4111 1111 1111 1111 ok", "card [CARD] ok"),
        ("4111111111111111", "[CARD]"),
        ("3782-822463-10005", "[CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [IBAN]."),
        ("GB82WEST12345698765432", "[IBAN]"),
        # What follows could be a last group of it, by its looks.
        ("BE68539007547034 EUR 100", "[IBAN] EUR 100"),
        ("from ES91 2100 0418 4502 0005 1332 TO AT611904300234573201 ON 7 MAY", "from [IBAN] TO [IBAN] ON 7 MAY"),
        # And what precedes could be the first one.
        ("REF AB12 DE89 3704 0044 0532 0130 00", "REF AB12 [IBAN]"),
        ("valid until 12/2026 4111 1111 1111 1111", "valid until 12/2026 [CARD]"),
        ("no.4111111111111111", "no.[CARD]"),
        ("key mnk_abcdefghijklmnop", "key [API_KEY]"),
        ("sk-proj-abcdefghijklmnopqrstuv", "[API_KEY]"),
        ("AKIAABCDEFGHIJKLMNOP", "[API_KEY]"),
        ("authorization: Bearer abcdefgh.ijkl", "authorization: Bearer [TOKEN]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.abc-def_1", "[TOKEN]"),
        ("postgresql://user:hunter2@db:5432/minion", "postgresql://[CREDENTIALS]@db:5432/minion"),
    ],
)
def test_what_is_personal_or_secret_is_marked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an ordinary sentence with 3 numbers, 17 and 2,048",
        "4111 1111 1111 1112",  # Luhn says no
        "DE89 3704 0044 0532 0130 01",  # mod 97 says no
        "2026-11-22T14:37:30.123456Z",
        "2026-11-22 14:37:30",
        "127.0.0.1:50051",
        "1795359715266446000",
        "0.4111111111111111",
        "0af7651916cd43dd8448eb211c80319c",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "/minion.session.v1.SessionService/GetSession",
        "version 1.85.1, 12 ms",
        "a@b",
    ],
)
def test_what_is_neither_stays(text: str) -> None:
    assert mask(text) == text


def test_ids_are_never_taken_for_numbers_of_people() -> None:
    for _ in range(2_000):
        text = f"run {uuid4()} of {uuid4()}"
        assert mask(text) == text
    assert mask("12345678-1234-1234-1234-123456789012") == "12345678-1234-1234-1234-123456789012"


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 100_000,
        "1 " * 50_000,
        "@" * 50_000,
        "a." * 50_000 + "@",
        "AA00" * 20_000,
        "AA00 " * 20_000,
        "+1" * 40_000,
        "eyJ" * 30_000,
    ],
)
def test_hostile_text_is_masked_in_bounded_time(hostile: str) -> None:
    started = time.thread_time()
    mask(hostile)
    assert time.thread_time() - started < 0.5


def test_text_without_end_is_cut() -> None:
    assert len(mask("x" * 1_000_000)) < masking.MAXIMUM_CHARACTERS + 100


def test_values_are_masked_at_every_depth_and_secrets_by_their_names() -> None:
    value = {
        "to": ["ann@example.com", {"cc": ("bob@example.com",)}],
        "password": "short",
        "Authorization": "x",
        "count": 3,
        "rate": 0.5,
        "none": None,
        "data": b"1234",
        "id": uuid4(),
    }
    masked = masking.mask_value(value)
    assert masked["to"] == ["[EMAIL]", {"cc": ["[EMAIL]"]}]
    assert masked["password"] == masked["Authorization"] == "[SECRET]"
    assert (masked["count"], masked["rate"], masked["none"]) == (3, 0.5, None)
    assert masked["data"] == "<4 bytes>"
    assert masked["id"] == str(value["id"])


def test_what_lies_too_deep_or_loops_is_dropped() -> None:
    looped: list[object] = []
    looped.append(looped)
    assert "…" in repr(masking.mask_value(looped))


def test_json_is_masked_whole_and_nothing_of_it_is_lost() -> None:
    long = f"{'x' * 60_000} ann@example.com"
    deep: dict[str, object] = {"to": "ann@example.com"}
    for _ in range(30):
        deep = {"in": deep}
    masked = masking.mask_json(
        {"long": long, "many": list(range(5_000)), "deep": deep, "none": None, "yes": True, "rate": 0.5}
    )
    assert masked["long"] == f"{'x' * 60_000} [EMAIL]"
    assert masked["many"] == list(range(5_000))
    assert repr(masked["deep"]).count("in") == 30
    assert "'to': '[EMAIL]'" in repr(masked["deep"])
    assert (masked["none"], masked["yes"], masked["rate"]) == (None, True, 0.5)


def test_json_names_are_masked_and_stay_apart() -> None:
    value = {"ann@example.com": 1, "[EMAIL] 2": 2, "bob@example.com": 3, "[EMAIL]": 4, "eve@example.com": 5}
    masked = masking.mask_json(value)
    assert sorted(masked.values()) == [1, 2, 3, 4, 5]
    assert masked["[EMAIL]"] == 4
    assert masked["[EMAIL] 2"] == 2
    assert "example.com" not in repr(masked)


def test_json_secrets_go_by_their_names_and_cards_even_as_numbers() -> None:
    value = {
        "password": {"old": "a"},
        "token": 17,
        "api_key": None,
        "card": 4111111111111111,
        "count": 4111111111111112,
    }
    assert masking.mask_json(value) == {
        "password": "[SECRET]",
        "token": "[SECRET]",
        "api_key": None,
        "card": "[CARD]",
        "count": 4111111111111112,
    }
