"""One service's gRPC server: its life from the first port to the last call."""

import asyncio
import errno
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.internal import api_implementation
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from minion_auth import Authenticator
from minion_errors import Unavailable
from minion_telemetry import Telemetry
from prometheus_client import CollectorRegistry

from minion_grpc.call import Surroundings
from minion_grpc.health import Health
from minion_grpc.interceptor import CallInterceptor
from minion_grpc.listener import ExpiryGauge, TlsListener
from minion_grpc.metrics import RpcMetrics, kind_of
from minion_grpc.settings import ServerSettings

# Beyond the limit that we answer for, gRPC refuses by itself, before it reads the message.
_HARD_LIMIT_FACTOR = 2
_HOOK_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class Server:
    """Serves the servicers of one service, with health, reflection, and every call through one interceptor.

    `deadlines` gives single methods (full names) a default deadline of their own, in seconds; None means none.
    """

    def __init__(
        self,
        name: str,
        settings: ServerSettings,
        telemetry: Telemetry,
        authenticator: Authenticator,
        *,
        deadlines: Mapping[str, float | None] | None = None,
    ) -> None:
        if api_implementation.Type() != "upb":
            raise RuntimeError("protobuf's upb backend is missing: the pure Python one is slower by an order")
        self.name = name
        self._settings = settings
        self._log = structlog.get_logger()
        self._around = Surroundings(name, telemetry, authenticator, settings.max_message_bytes)
        # Metrics that are off are counted where nobody looks.
        registry = telemetry.registry if telemetry.metrics_enabled else CollectorRegistry()
        self._expiry = ExpiryGauge(registry)
        self._metrics = RpcMetrics(registry)
        interceptor = CallInterceptor(self._around, self._metrics, settings.default_deadline_seconds, deadlines or {})
        self._server = grpc.aio.server(
            interceptors=[interceptor],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.maximum_concurrent_rpcs,
        )
        self._health = Health()
        self._register(health_pb2_grpc.add_HealthServicer_to_server, self._health)
        self._services: list[str] = []
        self._drain_hooks: list[Callable[[], Awaitable[object]]] = []
        self._workers: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._running: list[asyncio.Task[None]] = []
        self._serving = False
        self._stopped: asyncio.Event | None = None
        self._port: int | None = None
        self._mtls_port: int | None = None

    @property
    def ready(self) -> bool:
        """Whether calls are taken; safe to read from another thread."""
        return self._serving

    @property
    def port(self) -> int:
        """The bound port, once started."""
        if self._port is None:
            raise RuntimeError("the server has not started")
        return self._port

    @property
    def address(self) -> str:
        """Where clients on this machine reach the server, as `host:port`."""
        return self._near(self.port)

    @property
    def mtls_address(self) -> str | None:
        """Where they reach it with a certificate of their own; None where no such port is open."""
        return None if self._mtls_port is None else self._near(self._mtls_port)

    @property
    def addresses(self) -> dict[str, str]:
        """The open ports by what they speak: `plaintext` or `tls`, and `mtls`; empty before the start."""
        if self._port is None:
            return {}
        first = {"plaintext" if self._settings.tls_files is None else "tls": self.address}
        return first if self.mtls_address is None else {**first, "mtls": self.mtls_address}

    def add(
        self, register: Callable[[Any, grpc.aio.Server], None], servicer: object, service: ServiceDescriptor
    ) -> None:
        """Adds a servicer by its generated `add_XServicer_to_server`, and its service to health and reflection.

        Its methods are counted from 0 on, called or not, so that the rate of a first call is seen.
        """
        self._register(register, servicer)
        self._services.append(service.full_name)
        for method in service.methods:
            kind = kind_of(request_streaming=method.client_streaming, response_streaming=method.server_streaming)
            self._metrics.method(kind, service.full_name, method.name)

    def switch_off(self, methods: Iterable[str], setting: str) -> None:
        """Answers these methods (full names) with UNIMPLEMENTED / FEATURE_DISABLED, naming the setting that says so."""
        self._around.switched_off.update(dict.fromkeys(methods, setting))

    def background(self, worker: Callable[[], Awaitable[object]], *, name: str | None = None) -> None:
        """Runs `worker()` while the server serves; one that fails is logged and started again after a growing pause."""
        self._workers.append((name or str(getattr(worker, "__qualname__", worker)), worker))

    def on_drain(self, hook: Callable[[], Awaitable[object]]) -> None:
        """Calls `hook()` when the server begins to stop, before it refuses calls: to release leases. 5 s at most."""
        self._drain_hooks.append(hook)

    async def start(self) -> int:
        """Binds the port, and that of mutual TLS, begins to serve and to work, and gives the first bound port.

        Raises:
            Unavailable: a port is taken or not allowed (`PORT_UNAVAILABLE`).
            CertificatesInvalid: the TLS files can't be used.
        """
        if self._settings.reflection:
            listed = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
            self._register(
                reflection_pb2_grpc.add_ServerReflectionServicer_to_server, reflection.aio.ReflectionServicer(listed)
            )
        listeners: list[TlsListener] = []
        if self._settings.tls_files is not None:
            listeners.append(TlsListener("tls", self._settings.tls_files, self._expiry))
        self._port = await self._open(self._settings.port, *listeners)
        if self._settings.mtls_files is not None:
            listeners.append(TlsListener("mtls", self._settings.mtls_files, self._expiry))
            self._mtls_port = await self._open(self._settings.effective_mtls_port, listeners[-1])
        for listener in listeners:
            self.background(listener.watch, name="certificates")
        for service in self._services:
            self._health.serve(service)
        await self._server.start()
        self._stopped = asyncio.Event()
        self._running = [
            asyncio.create_task(self._supervise(name, worker), name=name) for name, worker in self._workers
        ]
        self._serving = True
        told = {} if self.mtls_address is None else {"mtls_address": self.mtls_address}
        self._log.info("serving", service=self.name, address=self.address, **told)
        if self._settings.is_open_plain_text:
            self._log.warning("credentials travel in plain text", service=self.name, address=self.address)
        return self._port

    async def drain_and_stop(self) -> None:
        """Stops without losing a call: NOT_SERVING, hooks, calls in hand, workers; safe to call twice."""
        if self._stopped is None:
            await self._server.stop(None)
            return
        if not self._serving:
            await self._stopped.wait()
            return
        self._serving = False
        self._log.info("draining", service=self.name)
        self._health.stop()
        for hook in self._drain_hooks:
            await self._call(hook)
        await asyncio.sleep(self._settings.drain_notice_seconds)
        # Watches never end by themselves: they are told to go elsewhere, or each drain would take its whole time.
        self._around.draining = True
        for watcher in list(self._around.watchers):
            watcher.cancel()
        await self._server.stop(self._settings.drain_seconds)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._stopped.set()
        self._log.info("stopped", service=self.name)

    def _register(self, register: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        register(servicer, cast("grpc.aio.Server", _OneQueue(self._server)))

    async def _open(self, port: int, listener: TlsListener | None = None) -> int:
        wanted = _joined(self._settings.host, port)
        try:
            await _probe(self._settings.host, port)
            if listener is None:
                return self._server.add_insecure_port(wanted)
            return self._server.add_secure_port(wanted, listener.credentials())
        except (OSError, RuntimeError) as fault:
            cause = (
                (fault.strerror or "") if isinstance(fault, OSError) else "it is in use, or no address of this machine"
            )
            raise Unavailable(
                f"The port {wanted} of the service {self.name} can't be opened: {cause}.",
                reason="PORT_UNAVAILABLE",
                metadata={"address": wanted},
            ) from fault

    def _near(self, port: int) -> str:
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - compared, not bound
        return _joined(anywhere.get(self._settings.host, self._settings.host), port)

    async def _call(self, hook: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(_HOOK_SECONDS):
                await hook()
        except Exception:  # noqa: BLE001 - whatever a hook does, the drain goes on
            self._log.exception("drain hook failed", service=self.name)

    async def _supervise(self, name: str, worker: Callable[[], Awaitable[object]]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                await worker()
            except Exception:  # noqa: BLE001 - a worker's crash must not end the service, whatever it was
                self._log.exception("worker failed", service=self.name, worker=name)
            else:
                return
            # One that worked for long before it fell starts from a short pause again.
            pause = _FIRST_PAUSE_SECONDS if clock() - started > _LONGEST_PAUSE_SECONDS else pause
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


class _OneQueue:
    """Stands for a server before generated code, so that calls of all methods arrive in one queue.

    Generated code asks for a queue for each method as well, and the server walks along all of its queues for each call
    (grpcio 1.85.1): 8 µs with the thirty methods of a service.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Does nothing: these are the methods of the generic handlers once more."""


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


async def _probe(host: str, port: int) -> None:
    """Raises OSError when somebody listens on the port, or it isn't ours to open.

    gRPC finds out as well, but says only that it failed, and writes lines of its own to standard error.
    """
    if port == 0:
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as fault:
                if fault.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        # Linux would let a second server share the port, and each would get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes * _HARD_LIMIT_FACTOR),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # Who connects and says nothing holds a socket; the default gives two minutes.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Connections age, so that clients behind round robin find new replicas; gRPC adds ± 10 % by itself.
        ("grpc.max_connection_age_ms", 300_000),
        ("grpc.max_connection_age_grace_ms", 70_000),
    ]
