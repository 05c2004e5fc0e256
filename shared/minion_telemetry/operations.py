"""The operations port: `/metrics`, `/healthz` and `/readyz`, and nothing else."""

import errno
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minion_errors import Unavailable
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class OperationsServer:
    """Serves metrics and probes over HTTP from a thread of its own, so that a busy event loop still answers probes.

    `/healthz` says that the process lives, `/readyz` asks `ready` (called from that thread: it must only read flags)
    and lists `addresses` (what is spoken there → `host:port`; called as `ready` is), `/metrics` writes the registry in
    the format that the scraper asks for.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry | None,
        ready: Callable[[], bool],
        addresses: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._address = (host, port)
        self._registry = registry
        self._ready = ready
        self._addresses = addresses
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The bound port; it differs from the one asked for when that was 0."""
        return int(self._http.server_address[1]) if self._http is not None else self._address[1]

    def start(self) -> int:
        """Binds the port, begins to serve and returns the bound port.

        Raises:
            Unavailable: the port is taken or not allowed (`PORT_UNAVAILABLE`).
        """
        host, port = self._address
        try:
            self._http = _Http(self._address, _handler(self._registry, self._ready, self._addresses))
        except OSError as fault:
            cause = "is in use" if fault.errno == errno.EADDRINUSE else f"can't be opened ({fault.strerror})"
            raise Unavailable(
                f"The operations port {host}:{port} {cause}.",
                reason="PORT_UNAVAILABLE",
                metadata={"address": f"{host}:{port}"},
            ) from fault
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, name="minion-operations", daemon=True
        )
        self._thread.start()
        return self.port

    def stop(self) -> None:
        """Stops serving and frees the port; safe to call twice."""
        if self._http is None or self._thread is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)
        self._http = self._thread = None


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    # Without it a restart within a minute would find the port still waiting; a live listener still refuses the second.
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Stays silent: a scraper that hung up is no fault of the service."""


def _handler(
    registry: CollectorRegistry | None, ready: Callable[[], bool], addresses: Callable[[], Mapping[str, str]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "minion"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics" if registry is not None:
                    encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, encoder(registry), content_type)
                case "/healthz":
                    self._answer(200, b"ok\n")
                case "/readyz":
                    if not ready():
                        self._answer(503, b"not ready\n")
                        return
                    listed = "".join(f"{spoken} {address}\n" for spoken, address in addresses().items())
                    self._answer(200, f"ready\n{listed}".encode())
                case _:
                    self._answer(404, b"not found\n")

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Writes nothing: probes would drown the log."""

    return Handler
