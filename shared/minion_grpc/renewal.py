"""A channel over TLS that takes up renewed certificates.

gRPC for Python fixes a channel's credentials when it is opened: a connection that is made anew, as each is every five
minutes, would show the certificate of the start for ever. So the channel beneath is replaced when the files change.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import grpc

from minion_grpc.certificates import Certificates, RenewedCertificates

_LOOK_SECONDS: Final = 1.0
# No call outlives it: servers end connections after their age and its grace, 300 + 10 % + 70 seconds.
_LONGEST_SECONDS: Final = 420.0


class _Generation:
    """One channel beneath, and the calls on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def hold(self, call: Any) -> None:
        self._calls += 1
        self._idle.clear()
        call.add_done_callback(self._let_go)

    def _let_go(self, _: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def retire(self) -> None:
        """Closes the channel once its calls have ended, or when none can be left but one that nobody reads."""
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            # A channel that is told to close with calls in hand refuses those whose interceptors have yet to run.
            await self.channel.close()


class RenewedChannel(grpc.aio.Channel):
    """A channel whose calls begin on certificates of the last second; `open_` opens one with given certificates.

    Calls in hand end where they began.
    """

    def __init__(self, certificates: RenewedCertificates, open_: Callable[[Certificates], grpc.aio.Channel]) -> None:
        self._certificates = certificates
        self._open = open_
        self._generation = _Generation(open_(certificates.current))
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    def generation(self) -> _Generation:
        """Gives the channel for a call that begins now."""
        now = time.monotonic()
        if now >= self._next_look and not self._closed:
            self._next_look = now + _LOOK_SECONDS
            if self._certificates.look():
                retired, self._generation = self._generation, _Generation(self._open(self._certificates.current))
                task = asyncio.get_running_loop().create_task(retired.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        return self._generation

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.aio.Channel`, and so are the three below."""
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Makes calls with a stream of responses."""
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Makes calls with a stream of requests."""
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Makes calls with streams both ways."""
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Gives the state of the channel that calls begin on."""
        return self.generation().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the channel that calls begin on now leaves a state."""
        await self.generation().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the channel is connected."""
        await self.generation().channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel and those before it; calls in hand are cancelled after `grace` seconds."""
        self._closed = True
        retiring = list(self._retiring)
        if grace and retiring:
            await asyncio.wait(retiring, timeout=grace)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        await self._generation.channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Method:
    """One method on whichever channel is beneath."""

    def __init__(self, channel: RenewedChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._channel = channel
        self._make = make
        self._generation: _Generation | None = None
        self._call: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        generation = self._channel.generation()
        if generation is not self._generation:
            self._generation, self._call = generation, self._make(generation.channel)
        call = self._call(*args, **kwargs)
        generation.hold(call)
        return call
