"""Every kind of method and handler is served."""

from collections.abc import AsyncIterator
from typing import Any

from tests.minion_grpc.echo import EchoRequest
from tests.minion_grpc.stage import serving, stub


async def test_every_arity_and_both_handler_styles_pass_through_the_interceptor() -> None:
    async def requests() -> AsyncIterator[Any]:
        for text in ("one", "two"):
            yield EchoRequest(text=text)

    async with serving() as served, served.channel() as channel:
        echo = stub(channel)
        assert (await echo.Echo(EchoRequest(text="hello"))).text == "hello"
        assert [answer.text async for answer in echo.Split(EchoRequest(text="a b c"))] == ["a", "b", "c"]
        assert [answer.text async for answer in echo.Write(EchoRequest(text="a b c"))] == ["a", "b", "c"]
        assert (await echo.Join(requests())).text == "one two"
        assert [answer.text async for answer in echo.Chat(requests())] == ["one", "two"]
