"""Certificates in PEM files: read and checked as a whole, and taken up anew when the files change."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from minion_errors import FailedPrecondition

# What gRPC's TLS (BoringSSL) signs with and accepts: neither Ed25519 nor P-521.
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_LEAST_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of one side of TLS connections.

    Args:
        certificate: what this side shows, its own certificate first, then those between it and the CA.
        key: the key of the first of them.
        ca: the CAs that the other side's certificate is checked by. A client that names none takes the system's.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files held, as gRPC takes it; `expire_time` is the first end of what this side shows."""

    certificate: bytes | None
    key: bytes | None = field(repr=False)
    ca: bytes | None
    expire_time: datetime | None


class CertificatesInvalid(FailedPrecondition):
    """The files can't be used together (`TLS_FILES_INVALID`); `faults` says why, by the field of TlsFiles."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        listed = "; ".join(f"the {name} {fault}" for name, fault in faults.items())
        super().__init__(f"The TLS files can't be used: {listed}.", reason="TLS_FILES_INVALID")
        self.faults = dict(faults)


def read(files: TlsFiles) -> Certificates:
    """Reads the files and checks that they go together.

    Raises CertificatesInvalid, with every fault: unreadable, no PEM, expired or not yet valid, a key that isn't the
    certificate's or of a kind that gRPC's TLS doesn't know.
    """
    faults: dict[str, str] = {}
    found = {name: _content(getattr(files, name), name, faults) for name in ("certificate", "key", "ca")}
    chain = _chain(files.certificate, found["certificate"], faults)
    _try_ca(files.ca, found["ca"], faults)
    key = _private_key(files.key, found["key"], faults)
    if chain:
        _judge(chain, key, files, faults)
    if faults:
        raise CertificatesInvalid(faults)
    expire_time = min((certificate.not_valid_after_utc for certificate in chain), default=None)
    return Certificates(found["certificate"], found["key"], found["ca"], expire_time)


def system_ca() -> Path | None:
    """Finds the system's CAs (SSL_CERT_FILE, where it is set); None leaves them to gRPC, which brings Mozilla's."""
    found = ssl.get_default_verify_paths().cafile
    return Path(found) if found else None


class RenewedCertificates:
    """The certificates in force: what the files hold, or held when they last went together.

    `purpose` says in the log what they are for. Raises CertificatesInvalid when they don't go together at the start.
    """

    def __init__(self, files: TlsFiles, purpose: str) -> None:
        self._files = files
        self._log = structlog.get_logger().bind(certificates=purpose)
        self._seen = self._state()
        self._refused = ""
        self.current = read(files)

    def look(self) -> bool:
        """Looks at the files, and tells whether new certificates are in force.

        Costs a few `stat`s while nothing changes. Files that don't go together are left alone until they do: whoever
        replaces a certificate and its key does so one after the other. So are certificates of later, until then.
        """
        state = self._state()
        if state == self._seen and not self._refused:
            return False
        # Noted before they are read: what is written meanwhile is another state, and read at the next look.
        self._seen = state
        try:
            found = read(self._files)
        except CertificatesInvalid as fault:
            if str(fault) != self._refused:
                self._refused = str(fault)
                self._log.warning("certificates not renewed", error=str(fault))
            return False
        self._refused = ""
        if found == self.current:
            return False
        self.current = found
        self._log.info("certificates renewed", expire_time=found.expire_time and found.expire_time.isoformat())
        return True

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(path) for path in (self._files.certificate, self._files.key, self._files.ca))


def _stat(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        # Of what a link leads to: Kubernetes replaces a secret's files by turning a link to another folder.
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _content(path: Path | None, name: str, faults: dict[str, str]) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        faults[name] = f"can't be read: {path} ({error.strerror})"
        return None


def _chain(path: Path | None, content: bytes | None, faults: dict[str, str]) -> list[x509.Certificate]:
    if content is None:
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        faults["certificate"] = f"holds no certificate in PEM: {path}"
        return []


def _try_ca(path: Path | None, content: bytes | None, faults: dict[str, str]) -> None:
    if content is None:
        return
    try:
        # By OpenSSL: cryptography is strict, and systems' files hold certificates that break some rule or other.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        faults["ca"] = f"holds no certificate in PEM: {path}"


def _private_key(path: Path | None, content: bytes | None, faults: dict[str, str]) -> PrivateKeyTypes | None:
    if content is None:
        return None
    try:
        return load_pem_private_key(content, password=None)
    except TypeError:
        faults["key"] = f"has a passphrase, and must have none: {path}"
    except (ValueError, UnsupportedAlgorithm):
        faults["key"] = f"holds no private key in PEM: {path}"
    return None


def _judge(chain: list[x509.Certificate], key: PrivateKeyTypes | None, files: TlsFiles, faults: dict[str, str]) -> None:
    public = chain[0].public_key()
    if key is not None and key.public_key() != public:
        faults["key"] = f"is not the key of the first certificate in {files.certificate}: {files.key}"
    if not _is_spoken(public):
        faults["certificate"] = (
            f"must be of an RSA key of 2048 bits or more, or ECDSA on P-256 or P-384: {files.certificate}"
        )
    now = datetime.now(UTC)
    begins = max(certificate.not_valid_before_utc for certificate in chain)
    ends = min(certificate.not_valid_after_utc for certificate in chain)
    if begins > now:
        faults["certificate"] = f"begins at {begins.isoformat()} only: {files.certificate}"
    if ends <= now:
        faults["certificate"] = f"ended at {ends.isoformat()}: {files.certificate}"


def _is_spoken(key: CertificatePublicKeyTypes) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS
