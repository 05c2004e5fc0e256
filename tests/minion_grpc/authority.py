"""Certificates made by the tests, and the files that they stand in."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from minion_grpc import TlsFiles

_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    private_key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key(self) -> bytes:
        """Its key."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """A CA; `parent` makes it one between."""

    own: Issued

    def __init__(self, name: str = "ca", parent: "Authority | None" = None) -> None:
        self.own = _issue(name, None if parent is None else parent.own, ca=True)

    def issue(
        self,
        name: str = "service",
        *,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        begins: timedelta = -3 * _MONTH,
        lifetime: timedelta = _MONTH,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Issued:
        """Makes a certificate, `begins` and `lifetime` counted from now; one of a negative lifetime has ended."""
        return _issue(name, self.own, hosts=hosts, begins=begins, lifetime=lifetime, key=key)


class Folder:
    """A folder with a certificate, its key and a CA, as services and clients are pointed at."""

    def __init__(self, path: Path, issued: Issued, authority: Authority) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.certificate, self.key, self.ca = path / "tls.crt", path / "tls.key", path / "ca.crt"
        self.ca.write_bytes(authority.own.pem)
        self.hold(issued)

    def hold(self, issued: Issued) -> None:
        """Replaces certificate and key, one after the other."""
        self.certificate.write_bytes(issued.pem)
        self.key.write_bytes(issued.key)

    @property
    def files(self) -> TlsFiles:
        """All three."""
        return TlsFiles(self.certificate, self.key, self.ca)

    @property
    def ca_alone(self) -> TlsFiles:
        """What a client without a certificate needs."""
        return TlsFiles(ca=self.ca)

    def tls(self) -> dict[str, Any]:
        """The settings of a first listener with TLS."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}

    def mtls(self) -> dict[str, Any]:
        """The settings of the second, on a free port."""
        return {
            "mtls_certificate": self.certificate,
            "mtls_key": self.key,
            "mtls_client_ca": self.ca,
            "mtls_port": 0,
        }


def _issue(
    name: str,
    issuer: Issued | None,
    *,
    ca: bool = False,
    hosts: Sequence[str] = (),
    begins: timedelta = -3 * _MONTH,
    lifetime: timedelta = _MONTH,
    key: CertificateIssuerPrivateKeyTypes | None = None,
) -> Issued:
    own = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
    return Issued(builder.sign(own if issuer is None else issuer.private_key, hashes.SHA256()), own)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
