"""A port with TLS: what it shows to new connections, renewed while it serves."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import grpc
import structlog
from prometheus_client import CollectorRegistry, Gauge

from minion_grpc.certificates import Certificates, RenewedCertificates, TlsFiles

_NOTICE: Final = timedelta(days=7)
_REMINDER: Final = timedelta(days=1)

Listening = Literal["tls", "mtls"]


class ExpiryGauge:
    """When the certificates of a service's listeners end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends, its chain included, in seconds since the epoch.",
            ["listener"],
            registry=registry,
        )

    def set(self, listener: Listening, expire_time: datetime) -> None:
        """Records the end of the certificate in force."""
        self._gauge.labels(listener).set(expire_time.timestamp())


class TlsListener:
    """The certificates of one port; with `mtls` it asks clients for theirs, and refuses those that show none.

    `look_seconds` pass between two looks at the files.

    Raises CertificatesInvalid when the files don't go together.
    """

    def __init__(self, listening: Listening, files: TlsFiles, gauge: ExpiryGauge, *, look_seconds: float = 1.0) -> None:
        self._look_seconds = look_seconds
        self._listening = listening
        self._gauge = gauge
        self._log = structlog.get_logger().bind(listener=listening)
        self._certificates = RenewedCertificates(files, f"{listening} listener")
        # What gRPC has yet to be handed; it asks from threads of its own, and takes each configuration once.
        self._waiting: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self._warned: datetime | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Gives what a port is opened with. TLS 1.2 is the oldest that gRPC speaks."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._certificates.current),
            self._renewed,  # type: ignore[arg-type] # None is no change
            require_client_authentication=self._listening == "mtls",
        )

    async def watch(self) -> None:
        """Takes up renewed files, for ever, and tells once a day of a near end."""
        while True:
            self._record()
            await asyncio.sleep(self._look_seconds)
            if await asyncio.to_thread(self._certificates.look):
                self._waiting.append(_configuration(self._certificates.current))
                self._warned = None

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        # Called in each handshake: files are read elsewhere.
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _record(self) -> None:
        expire_time = self._certificates.current.expire_time
        if expire_time is None:
            return
        self._gauge.set(self._listening, expire_time)
        now = datetime.now(UTC)
        if expire_time - now < _NOTICE and (self._warned is None or now - self._warned >= _REMINDER):
            self._warned = now
            self._log.warning("certificate ends soon", expire_time=expire_time.isoformat())


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    if found.key is None or found.certificate is None:
        raise ValueError("a listener needs a certificate and its key")
    return grpc.ssl_server_certificate_configuration([(found.key, found.certificate)], found.ca)
