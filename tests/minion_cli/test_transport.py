"""How `minion` is told to call over TLS, and what `minion dev` makes of such settings."""

from pathlib import Path

import pytest
from minion_cli.application import tls_options
from minion_cli.connection import discover
from minion_cli.development.directory import Credentials, Directory
from minion_cli.development.environment import environment
from minion_cli.development.ports import DOCUMENTED
from minion_errors import FailedPrecondition
from minion_grpc import TlsFiles

from tests.minion_grpc.authority import Authority, Folder

KEY = {"MINION_API_KEY": "mnk_given"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The current directory, with a certificate, its key and the CA."""
    monkeypatch.chdir(tmp_path)
    authority = Authority()
    return Folder(tmp_path, authority.issue(), authority)


def test_without_settings_it_calls_in_plain_text(folder: Folder) -> None:
    del folder
    assert discover(environ=KEY).tls is None


def test_variables_say_how_it_calls(folder: Folder) -> None:
    assert discover(environ={**KEY, "MINION_CLIENT_TLS": "true"}).tls == TlsFiles()
    environ = {
        "MINION_CLIENT_TLS": "true",
        "MINION_CLIENT_CA": str(folder.ca),
        "MINION_CLIENT_CERTIFICATE": str(folder.certificate),
        "MINION_CLIENT_KEY": str(folder.key),
    }
    assert discover(environ={**KEY, **environ}).tls == folder.files


def test_options_win_over_variables(folder: Folder) -> None:
    token = tls_options.set({"client_tls": True, "client_ca": folder.ca})
    try:
        assert discover(environ={**KEY, "MINION_CLIENT_CA": "gone"}).tls == folder.ca_alone
    finally:
        tls_options.reset(token)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"MINION_CLIENT_CA": "ca.crt"}, "MINION_CLIENT_CA is set, and MINION_CLIENT_TLS is not"),
        ({"MINION_CLIENT_TLS": "true", "MINION_CLIENT_KEY": "tls.key"}, "MINION_CLIENT_CERTIFICATE is required"),
        ({"MINION_CLIENT_TLS": "true", "MINION_CLIENT_CA": "tls.key"}, "MINION_CLIENT_CA holds no certificate"),
        ({"MINION_CLIENT_TLS": "perhaps"}, "MINION_CLIENT_TLS"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_settings_that_do_not_go_together_are_refused(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(FailedPrecondition, match=fault) as refused:
        discover(environ={**KEY, **environ})
    assert refused.value.reason == "SETTINGS_INVALID"


def test_a_development_stack_speaks_plain_text(tmp_path: Path) -> None:
    given = {
        "MINION_TLS_CERTIFICATE": "tls.crt",
        "MINION_SESSION_MTLS_PORT": "50152",
        "MINION_PEER_TLS": "mtls",
        "MINION_LOG_LEVEL": "debug",
    }
    made = environment(
        given,
        directory=Directory(tmp_path / ".minion"),
        credentials=Credentials("service", "operator", "database"),
        ports=DOCUMENTED,
        database={},
    )
    assert [name for name in given if name in made] == ["MINION_LOG_LEVEL"]
