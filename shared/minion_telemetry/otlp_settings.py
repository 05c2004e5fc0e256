"""What a deployment decides about the way of its traces: the variables of OpenTelemetry's exporter.

They keep the names that the world knows, and are checked with all other settings: the exporter would read them by
itself, raise what is wrong one at a time, and write a header that it can't read into the log.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from minion_settings import Fault, HttpAddress, Settings, relation
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from minion_telemetry import pairs

# Nothing waits longer for one batch.
_MOST_SECONDS: Final = 300
# The CAs, and what this side shows.
_FILES: Final = ("certificate", "client_certificate", "client_key")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where traces go, and how: `timeout` in seconds, and what the PEM files of TLS held."""

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compressed: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @property
    def is_secure(self) -> bool:
        """Whether it is reached over TLS."""
        return urlsplit(self.endpoint).scheme == "https"


def lower(value: object) -> object:
    """Takes a text in any case, as a validator before others."""
    return value.lower() if isinstance(value, str) else value


def _are_headers(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        pairs.headers(value.get_secret_value())
    return value


_Headers = Annotated[SecretStr | None, AfterValidator(_are_headers)]
_Compression = Literal["none", "gzip"]
_FOR_TRACES = "The same for traces alone: wins."


class OtlpSettings(Settings):
    """Settings of the way of traces."""

    otlp_endpoint: HttpAddress | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OpenTelemetry collector that takes traces by OTLP over gRPC, as in http://localhost:4317. "
        "Unset: traces are not recorded.",
    )
    otlp_headers: _Headers = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_HEADERS",
        description="Headers that it is sent, such as its key: name=value,name=value, values URL-encoded.",
    )
    otlp_traces_headers: _Headers = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_HEADERS", description=_FOR_TRACES
    )
    otlp_timeout: float = Field(
        default=10.0,
        gt=0,
        le=_MOST_SECONDS,
        validation_alias="OTEL_EXPORTER_OTLP_TIMEOUT",
        description="Seconds that a batch may take, 300 at most.",
    )
    otlp_traces_timeout: float | None = Field(
        default=None,
        gt=0,
        le=_MOST_SECONDS,
        validation_alias="OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        description=_FOR_TRACES,
    )
    otlp_compression: Annotated[_Compression, BeforeValidator(lower)] = Field(
        default="none",
        validation_alias="OTEL_EXPORTER_OTLP_COMPRESSION",
        description="How batches are compressed.",
    )
    otlp_traces_compression: Annotated[_Compression | None, BeforeValidator(lower)] = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", description=_FOR_TRACES
    )
    otlp_certificate: Path | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_CERTIFICATE",
        description="PEM file of the CAs by which the certificate of an https collector is checked. Unset: gRPC's.",
    )
    otlp_traces_certificate: Path | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", description=_FOR_TRACES
    )
    otlp_client_certificate: Path | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        description="PEM file of the certificate that an https collector is shown, its chain behind it.",
    )
    otlp_traces_client_certificate: Path | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", description=_FOR_TRACES
    )
    otlp_client_key: Path | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_CLIENT_KEY",
        description="PEM file of that certificate's key, with no passphrase.",
    )
    otlp_traces_client_key: Path | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", description=_FOR_TRACES
    )

    @property
    def otlp_destination(self) -> Destination | None:
        """Where traces go; None where no collector is set. Reads the files of TLS."""
        if self.otlp_endpoint is None:
            return None
        headers = self.otlp_traces_headers or self.otlp_headers
        secure = self._is_secure()
        return Destination(
            self.otlp_endpoint,
            pairs.headers(headers.get_secret_value()) if headers is not None else {},
            self.otlp_traces_timeout or self.otlp_timeout,
            (self.otlp_traces_compression or self.otlp_compression) == "gzip",
            *(path.read_bytes() if secure and path else None for _, path in map(self._file, _FILES)),
        )

    @relation
    def _certificate_can_be_read(self) -> Iterator[Fault]:
        """Yields what is wrong with the CAs of a collector that is called over TLS."""
        variable, path = self._file("certificate")
        if path is None or not self._is_secure():
            return
        try:
            content = path.read_bytes()
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            yield Fault(variable, f"holds no certificate in PEM: {path}")
        except OSError as error:
            yield Fault(variable, f"can't be read: {path} ({error.strerror})")

    @relation
    def _client_certificate_is_whole(self) -> Iterator[Fault]:
        """Yields what is wrong with the certificate that such a collector is shown, and with its key."""
        (variable, certificate), (key_variable, key) = map(self._file, _FILES[1:])
        if (certificate is None and key is None) or not self._is_secure():
            return
        if certificate is None:
            yield Fault(variable, f"is required beside {key_variable}")
        elif key is None:
            yield Fault(key_variable, f"is required beside {variable}")
        else:
            yield from _faults_of_pair((variable, certificate), (key_variable, key))

    def _is_secure(self) -> bool:
        return self.otlp_endpoint is not None and Destination(self.otlp_endpoint).is_secure

    def _file(self, name: str) -> tuple[str, Path | None]:
        """Gives a file of TLS and the variable that names it: that of traces, where it is set."""
        for_traces, for_all = f"otlp_traces_{name}", f"otlp_{name}"
        field = for_all if getattr(self, for_traces) is None else for_traces
        return self.variable(field), getattr(self, field)


def _faults_of_pair(certificate: tuple[str, Path], key: tuple[str, Path]) -> Iterator[Fault]:
    unreadable = False
    for variable, path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            unreadable = True
            yield Fault(variable, f"can't be read: {path} ({error.strerror})")
    if unreadable:
        return
    try:
        # A passphrase is refused here; without the callback OpenSSL would ask the terminal for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate[1], key[1], password=lambda: "")
    except (ssl.SSLError, ValueError):
        yield Fault(certificate[0], f"holds no certificate in PEM that goes with the key in {key[1]}: {certificate[1]}")
