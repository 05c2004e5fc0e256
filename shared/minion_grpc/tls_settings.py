"""What a deployment decides about TLS: of its own listeners, and of its calls to other services."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from minion_settings import Fault, Settings, relation
from pydantic import Field

from minion_grpc.certificates import CertificatesInvalid, TlsFiles, read

_TLS = {"certificate": "tls_certificate", "key": "tls_key"}
_MTLS = {"certificate": "mtls_certificate", "key": "mtls_key", "ca": "mtls_client_ca"}


class TlsSettings(Settings):
    """Settings of TLS."""

    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate that the gRPC server shows, its chain behind it; taken up anew when "
        "it changes. Unset, as the key: the server speaks plain text.",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key, with no passphrase.")
    mtls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate of a second gRPC port that asks clients for theirs; also what this "
        "service shows to others where the peer TLS is mtls. Unset, as its key and the client CA: there is no such "
        "port.",
    )
    mtls_key: Path | None = Field(
        default=None, description="PEM file of the key of that certificate, with no passphrase."
    )
    mtls_client_ca: Path | None = Field(
        default=None, description="PEM file of the CAs of which one must have signed a client's certificate."
    )
    mtls_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port of mutual TLS; 0 picks a free one. Unset: the gRPC server's port + 100.",
    )
    peer_tls: Literal["off", "tls", "mtls"] = Field(
        default="off",
        description="How this service calls the others: off (plain text), tls, or mtls (showing its own mTLS "
        "certificate).",
    )
    peer_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs by which other services' certificates are checked. Unset: the system's.",
    )

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of the first listener; None where it speaks plain text."""
        if self.tls_certificate is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key)

    @property
    def mtls_files(self) -> TlsFiles | None:
        """The files of the listener with mutual TLS; None where there is none."""
        if self.mtls_certificate is None:
            return None
        return TlsFiles(self.mtls_certificate, self.mtls_key, self.mtls_client_ca)

    @property
    def peer_files(self) -> TlsFiles | None:
        """The files by which other services are called; None for plain text."""
        if self.peer_tls == "off":
            return None
        if self.peer_tls == "tls":
            return TlsFiles(ca=self.peer_ca)
        return TlsFiles(self.mtls_certificate, self.mtls_key, self.peer_ca)

    @relation
    def _tls_is_whole(self) -> Iterator[Fault]:
        """Yields what is missing for TLS, and what is wrong with its files."""
        yield from self._together(_TLS)

    @relation
    def _mtls_is_whole(self) -> Iterator[Fault]:
        """Yields what is missing for mutual TLS, and what is wrong with its files."""
        yield from self._together(_MTLS)

    @relation
    def _mtls_port_is_of_mtls(self) -> Iterator[Fault]:
        """Yields a port for what there is not."""
        if self.mtls_port is not None and self.mtls_certificate is None:
            yield Fault(self.variable("mtls_port"), f"needs {self.variable('mtls_certificate')}")

    @relation
    def _peers_can_be_shown_a_certificate(self) -> Iterator[Fault]:
        """Yields calls over mutual TLS with nothing to show."""
        if self.peer_tls == "mtls" and self.mtls_certificate is None:
            yield Fault(self.variable("peer_tls"), f"is mtls, and needs {self.variable('mtls_certificate')} to show")

    @relation
    def _peer_ca_is_of_tls(self) -> Iterator[Fault]:
        """Yields CAs for calls in plain text."""
        if self.peer_ca is not None and self.peer_tls == "off":
            yield Fault(self.variable("peer_ca"), f"is set, and {self.variable('peer_tls')} is off")

    @relation
    def _peer_ca_can_be_read(self) -> Iterator[Fault]:
        """Yields what is wrong with the file of the CAs."""
        yield from faults_of(TlsFiles(ca=self.peer_ca), {"ca": self.variable("peer_ca")})

    def _together(self, fields: Mapping[str, str]) -> Iterator[Fault]:
        variables = {name: self.variable(field) for name, field in fields.items()}
        values: dict[str, Path | None] = {name: getattr(self, field) for name, field in fields.items()}
        yield from missing(values, variables)
        yield from faults_of(TlsFiles(**values), variables)


def missing(values: Mapping[str, object], variables: Mapping[str, str]) -> Iterator[Fault]:
    """Yields a fault for each value that is None while another isn't; `variables` name them."""
    given = [variables[name] for name, value in values.items() if value is not None]
    for name, value in values.items():
        if given and value is None:
            yield Fault(variables[name], f"is required beside {' and '.join(given)}")


def faults_of(files: TlsFiles, variables: Mapping[str, str]) -> Iterator[Fault]:
    """Yields what is wrong with the files; `variables` are those that name them, by the field of TlsFiles."""
    try:
        read(files)
    except CertificatesInvalid as invalid:
        for name, fault in invalid.faults.items():
            yield Fault(variables[name], fault)
