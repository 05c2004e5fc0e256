"""What a person decides about the connections of `minion`."""

from collections.abc import Iterator
from pathlib import Path

from minion_grpc import TlsFiles
from minion_grpc.tls_settings import faults_of, missing
from minion_settings import Fault, Settings, relation
from minion_telemetry.settings import TelemetrySettings
from pydantic import Field


class ClientSettings(Settings):
    """The command line's connections; its options --tls, --ca, --cert and --key win."""

    client_tls: bool = Field(default=False, description="Whether the command line calls the services over TLS.")
    client_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs by which it checks the services' certificates. Unset: the system's.",
    )
    client_certificate: Path | None = Field(
        default=None, description="PEM file of the certificate that it shows to ports with mutual TLS."
    )
    client_key: Path | None = Field(default=None, description="PEM file of that certificate's key, with no passphrase.")

    @property
    def client_files(self) -> TlsFiles | None:
        """The files by which services are called; None for plain text."""
        return TlsFiles(self.client_certificate, self.client_key, self.client_ca) if self.client_tls else None

    @relation
    def _tls_is_whole(self) -> Iterator[Fault]:
        """Yields what is missing beside what is set, and what is wrong with the files."""
        files = TlsFiles(self.client_certificate, self.client_key, self.client_ca)
        variables = {
            "certificate": self.variable("client_certificate"),
            "key": self.variable("client_key"),
            "ca": self.variable("client_ca"),
        }
        for name, variable in variables.items():
            if getattr(files, name) is not None and not self.client_tls:
                yield Fault(variable, f"is set, and {self.variable('client_tls')} is not")
        yield from missing({"certificate": files.certificate, "key": files.key}, variables)
        yield from faults_of(files, variables)


class CallSettings(ClientSettings, TelemetrySettings):
    """All that a command which calls services reads, so that one message tells what is wrong with it."""
