"""What the settings of TLS refuse at the start, all of it in one message."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from minion_grpc import ServerSettings, TlsFiles
from minion_settings import SettingsError

from tests.minion_grpc.authority import Authority, Folder
from tests.minion_grpc.stage import SERVICE_KEY

TLS = {"MINION_TLS_CERTIFICATE": "tls.crt", "MINION_TLS_KEY": "tls.key"}
MTLS = {"MINION_MTLS_CERTIFICATE": "tls.crt", "MINION_MTLS_KEY": "tls.key", "MINION_MTLS_CLIENT_CA": "ca.crt"}


@pytest.fixture
def authority() -> Authority:
    """A CA."""
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The current directory, with a certificate, its key, and the CA."""
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, authority.issue(), authority)


def load(environ: dict[str, str]) -> ServerSettings:
    """Loads settings of a service in `required` mode."""
    return ServerSettings.load({"MINION_AUTH_MODE": "required", "MINION_SERVICE_KEY": SERVICE_KEY, **environ})


def refused(environ: dict[str, str]) -> dict[str, str]:
    """Gives the faults by variable."""
    with pytest.raises(SettingsError) as refusal:
        load(environ)
    message = str(refusal.value)
    assert all(fault.variable in message and fault.description in message for fault in refusal.value.faults)
    return {fault.variable: fault.description for fault in refusal.value.faults}


def test_whole_settings_are_taken(folder: Folder) -> None:
    loaded = load({**TLS, **MTLS, "MINION_PEER_TLS": "mtls", "MINION_PEER_CA": "ca.crt", "MINION_PORT": "50051"})
    pair = (Path("tls.crt"), Path("tls.key"))
    assert loaded.tls_files == TlsFiles(*pair)
    assert loaded.mtls_files == TlsFiles(*pair, Path("ca.crt"))
    assert loaded.peer_files == TlsFiles(*pair, Path("ca.crt"))
    assert loaded.effective_mtls_port == 50151


def test_nothing_set_is_plain_text() -> None:
    loaded = load({})
    assert (loaded.tls_files, loaded.mtls_files, loaded.peer_files) == (None, None, None)
    assert not loaded.is_open_plain_text


def test_a_free_port_has_a_free_one_beside_it(folder: Folder) -> None:
    assert load({**MTLS, "MINION_PORT": "0"}).effective_mtls_port == 0
    assert load({**MTLS, "MINION_PORT": "50051", "MINION_MTLS_PORT": "0"}).effective_mtls_port == 0
    assert load({**MTLS, "MINION_PORT": "50051", "MINION_MTLS_PORT": "6000"}).effective_mtls_port == 6000


@pytest.mark.parametrize(
    ("environ", "variable", "fault"),
    [
        ({"MINION_TLS_CERTIFICATE": "tls.crt"}, "MINION_TLS_KEY", "required beside MINION_TLS_CERTIFICATE"),
        ({"MINION_TLS_KEY": "tls.key"}, "MINION_TLS_CERTIFICATE", "required beside MINION_TLS_KEY"),
        ({"MINION_MTLS_CLIENT_CA": "ca.crt"}, "MINION_MTLS_KEY", "required beside"),
        ({**MTLS, "MINION_MTLS_CLIENT_CA": ""}, "MINION_MTLS_CLIENT_CA", "MINION_MTLS_CERTIFICATE and MINION_MTLS_KEY"),
        ({"MINION_MTLS_PORT": "6000"}, "MINION_MTLS_PORT", "needs MINION_MTLS_CERTIFICATE"),
        ({**TLS, "MINION_TLS_KEY": "gone"}, "MINION_TLS_KEY", "can't be read: gone (No such file"),
        ({**TLS, "MINION_TLS_CERTIFICATE": "."}, "MINION_TLS_CERTIFICATE", "can't be read: . (Is a directory"),
        ({**TLS, "MINION_TLS_CERTIFICATE": "tls.key"}, "MINION_TLS_CERTIFICATE", "no certificate in PEM: tls.key"),
        ({**TLS, "MINION_TLS_KEY": "tls.crt"}, "MINION_TLS_KEY", "no private key in PEM: tls.crt"),
        ({**MTLS, "MINION_MTLS_CLIENT_CA": "tls.key"}, "MINION_MTLS_CLIENT_CA", "no certificate in PEM: tls.key"),
        ({"MINION_PEER_TLS": "mtls"}, "MINION_PEER_TLS", "needs MINION_MTLS_CERTIFICATE"),
        ({"MINION_PEER_TLS": "yes"}, "MINION_PEER_TLS", "'off', 'tls' or 'mtls'"),
        ({"MINION_PEER_CA": "ca.crt"}, "MINION_PEER_CA", "MINION_PEER_TLS is off"),
        ({"MINION_PEER_TLS": "tls", "MINION_PEER_CA": "gone"}, "MINION_PEER_CA", "can't be read"),
        ({**MTLS, "MINION_PORT": "70", "MINION_MTLS_PORT": "70"}, "MINION_MTLS_PORT", "is 70, and so is MINION_PORT"),
        (
            {**MTLS, "MINION_PORT": "50051", "MINION_OPERATIONS_PORT": "50151"},
            "MINION_MTLS_PORT",
            "is 50151, and so is MINION_OPERATIONS_PORT",
        ),
        ({**MTLS, "MINION_PORT": "65500"}, "MINION_MTLS_PORT", "MINION_PORT + 100 is no port"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_does_not_go_together_is_refused(environ: dict[str, str], variable: str, fault: str) -> None:
    assert fault in refused(environ)[variable]


def test_a_key_of_another_certificate_is_refused(folder: Folder, authority: Authority) -> None:
    folder.key.write_bytes(authority.issue().key)
    fault = "is not the key of the first certificate in tls.crt: tls.key"
    assert refused({**TLS, **MTLS}) == {"MINION_TLS_KEY": fault, "MINION_MTLS_KEY": fault}


def test_an_expired_certificate_is_refused(folder: Folder, authority: Authority) -> None:
    folder.hold(authority.issue(lifetime=timedelta(days=-1)))
    assert "ended at" in refused(TLS)["MINION_TLS_CERTIFICATE"]


def test_a_certificate_of_tomorrow_is_refused(folder: Folder, authority: Authority) -> None:
    folder.hold(authority.issue(begins=timedelta(days=1)))
    assert "begins at" in refused(TLS)["MINION_TLS_CERTIFICATE"]


def test_a_certificate_whose_chain_is_of_tomorrow_is_refused(folder: Folder, authority: Authority) -> None:
    issued, between = authority.issue(), authority.issue(begins=timedelta(days=1))
    folder.hold(issued)
    folder.certificate.write_bytes(issued.pem + between.pem)
    assert "begins at" in refused(TLS)["MINION_TLS_CERTIFICATE"]


@pytest.mark.parametrize(
    "make",
    [lambda: ec.generate_private_key(ec.SECP521R1()), lambda: rsa.generate_private_key(65537, 1024)],  # noqa: S505 - refused
)
def test_a_key_that_grpc_does_not_speak_is_refused(
    folder: Folder, authority: Authority, make: Callable[[], CertificateIssuerPrivateKeyTypes]
) -> None:
    folder.hold(authority.issue(key=make()))
    assert "P-256 or P-384" in refused(TLS)["MINION_TLS_CERTIFICATE"]


def test_a_key_with_a_passphrase_is_refused(folder: Folder, authority: Authority) -> None:
    issued = authority.issue()
    folder.hold(issued)
    folder.key.write_bytes(
        issued.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    assert "must have none" in refused(TLS)["MINION_TLS_KEY"]


@pytest.mark.usefixtures("folder")
def test_all_faults_stand_in_one_message() -> None:
    assert set(
        refused(
            {
                "MINION_SERVICE_KEY": "",
                "MINION_TLS_CERTIFICATE": "gone",
                "MINION_MTLS_CERTIFICATE": "tls.crt",
                "MINION_PEER_CA": "tls.key",
            }
        )
    ) == {
        "MINION_SERVICE_KEY",
        "MINION_TLS_CERTIFICATE",
        "MINION_TLS_KEY",
        "MINION_MTLS_KEY",
        "MINION_MTLS_CLIENT_CA",
        "MINION_PEER_CA",
    }


def test_keys_are_never_shown(folder: Folder) -> None:
    from minion_grpc.certificates import read

    assert "PRIVATE" not in repr(read(folder.files))


@pytest.mark.parametrize(("host", "environ", "is_open"), [("0.0.0.0", {}, True), ("0.0.0.0", TLS, False)])  # noqa: S104
def test_plain_text_off_the_loopback_is_allowed_and_known(
    folder: Folder, host: str, environ: dict[str, str], is_open: bool
) -> None:
    del folder
    assert load({"MINION_HOST": host, **environ}).is_open_plain_text == is_open
