"""The stand-in as an extractor: three wordings are one thing, and every quote stands in its message."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from minion_gateway.inference.domain import ChatMessage, CompletionRequest, Role
from minion_gateway.inference.providers.local import StandInProvider
from minion_gateway.inference.providers.stand_in_extraction import TITLE


async def drawn(*messages: str | tuple[str, str], known: Sequence[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    """What the stand-in draws from messages: texts of the user, or (role, text)."""
    lines = [
        {"sequence": index, "role": "user", "speaker": "ann", "text": message}
        if isinstance(message, str)
        else {"sequence": index, "role": message[0], "speaker": message[0], "text": message[1]}
        for index, message in enumerate(messages, 1)
    ]
    memories = [{"key": key, "content": content} for key, content in known]
    prompt = "\n".join(
        ["<known>", *(orjson.dumps(each).decode() for each in memories), "</known>", "<transcript>"]
        + [orjson.dumps(each).decode() for each in lines]
        + ["</transcript>"]
    )
    request = CompletionRequest(
        "stand-in",
        (ChatMessage(Role.SYSTEM, "Extract."), ChatMessage(Role.USER, prompt)),
        response_schema={"title": TITLE, "type": "object"},
    )
    found: list[dict[str, Any]] = orjson.loads((await StandInProvider().complete(request)).text)["memories"]
    return found


@pytest.mark.parametrize(
    ("key", "content", "wordings"),
    [
        (
            "user/name",
            "The user's name is Ada Lovelace.",
            ("My name is Ada Lovelace.", "Hi, I'm called Ada Lovelace!", "Please call me Ada Lovelace."),
        ),
        (
            "user/home",
            "The user lives in Paris.",
            ("I live in Paris.", "I\u2019m based in Paris.", "I moved to Paris in May."),
        ),
        ("user/occupation", "The user works as nurse.", ("I'm a nurse.", "I work as a nurse now.", "My job is nurse.")),
        (
            "user/likes/green-tea",
            "The user likes green tea.",
            ("I love green tea.", "I really like green tea a lot.", "Hello, I enjoy green tea!"),
        ),
        (
            "user/allergy/peanut",
            "The user has an allergy to peanut.",
            ("I'm allergic to peanuts.", "I have a peanut allergy.", "I have an allergy to peanuts, by the way."),
        ),
        (
            "user/dog-name",
            "The user's dog's name is Rex.",
            ("My dog is called Rex.", "My dog's name is Rex.", "Well, my dog is named Rex."),
        ),
    ],
)
async def test_three_wordings_are_one_thing(key: str, content: str, wordings: tuple[str, ...]) -> None:
    for wording in wordings:
        [found] = await drawn(wording)
        assert (found["key"], found["content"]) == (key, content)
        assert found["quote"] in wording
    [found] = await drawn(*wordings)
    assert found["sequences"] == [1, 2, 3]


async def test_a_message_that_says_several_things() -> None:
    text = "Hi there, I'm Ada, I live in Berlin and I have a dog called Rex. Do I live in Rome?"
    found = await drawn(text)
    assert [each["key"] for each in found] == ["user/name", "user/home", "user/has/dog", "user/dog-name"]
    assert all(each["quote"] in text for each in found)


@pytest.mark.parametrize(
    ("wording", "key", "content"),
    [
        ("I moved to Paris.", "user/home", "The user lives in Paris."),
        ("Actually, I live not in Berlin but in Paris.", "user/home", "The user lives in Paris."),
        ("I no longer live in Berlin.", "user/home", "The user no longer lives in Berlin."),
        ("I don't like green tea anymore.", "user/likes/green-tea", "The user no longer likes green tea."),
        ("My laptop is a ThinkPad, not a MacBook.", "user/laptop", "The user's laptop is a ThinkPad."),
        ("I no longer have a car.", "user/has/car", "The user no longer has a car."),
    ],
)
async def test_a_correction_names_what_it_supersedes(wording: str, key: str, content: str) -> None:
    [found] = await drawn(wording)
    assert (found["key"], found["content"], found["supersedes"]) == (key, content, key)


async def test_what_is_known_otherwise_is_superseded() -> None:
    known = [("user/home", "The user lives in Berlin."), ("user/name", "The user's name is Ada.")]
    home, name = await drawn("I live in Paris.", "My name is ADA.", known=known)
    assert (home["supersedes"], name["supersedes"]) == ("user/home", None)
    one, other = await drawn("I live in Berlin.", "I live in Paris.")
    assert (one["supersedes"], other["supersedes"]) == (None, "user/home")


@pytest.mark.parametrize(
    "text",
    [
        "Do I like tea?",
        "I have a question about it.",
        "I have to go.",
        "I'm sorry.",
        "I like it.",
        "The sky is blue.",
        "",
    ],
)
async def test_what_says_nothing_of_the_user_gives_nothing(text: str) -> None:
    assert await drawn(text) == []


async def test_only_the_user_is_listened_to() -> None:
    said = "My name is Mallory. I live in Rome."
    assert await drawn(("assistant", said), ("tool", said), ("system", said)) == []


async def test_preferences_and_skills() -> None:
    found = await drawn(
        "My favourite color is blue.", "When I ask for the report, send it as PDF.", "I like tea and dark chocolate."
    )
    assert [(each["type"], each["key"]) for each in found] == [
        ("preference", "user/favorite-color"),
        ("skill", "agent/when-i-ask-for-the-report"),
        ("preference", "user/likes/tea"),
        ("preference", "user/likes/dark-chocolate"),
    ]
