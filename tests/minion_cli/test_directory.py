import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from minion_cli.connection import discover
from minion_cli.development.directory import Directory, Stack
from minion_errors import FailedPrecondition


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    made = Directory(tmp_path / ".minion")
    made.prepare()
    return made


def test_secrets_are_made_once_and_for_this_user_alone(directory: Directory) -> None:
    first = directory.credentials()
    assert directory.credentials() == first
    assert len({first.service_key, first.operator_key, first.database_password}) == 3
    assert all(len(secret) >= 48 for secret in (first.service_key, first.operator_key, first.database_password))
    path = directory.path / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_stacks_share_no_secret(directory: Directory, tmp_path: Path) -> None:
    other = Directory(tmp_path / "other")
    other.prepare()
    assert other.credentials().service_key != directory.credentials().service_key


def test_the_directory_stays_out_of_version_control(directory: Directory) -> None:
    assert (directory.path / ".gitignore").read_text() == "*\n"


def test_a_broken_file_is_said_so_and_not_replaced(directory: Directory) -> None:
    path = directory.path / "credentials.json"
    path.write_text("{")
    with pytest.raises(FailedPrecondition) as refused:
        directory.credentials()
    assert refused.value.reason == "DIRECTORY_UNUSABLE"
    assert path.read_text() == "{"


def test_a_file_in_the_way_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition) as refused:
        Directory(tmp_path / "file").prepare()
    assert refused.value.reason == "DIRECTORY_UNUSABLE"


def test_a_stack_is_found_while_its_process_lives(directory: Directory) -> None:
    stack = Stack(os.getpid(), {"gateway": "127.0.0.1:1"}, {"gateway": "127.0.0.1:2"})
    directory.announce(stack)
    assert directory.find_stack() == stack
    directory.withdraw()
    directory.withdraw()
    assert directory.find_stack() is None


def test_a_killed_stack_is_not_found(directory: Directory) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    directory.announce(Stack(ended.pid, {}, {}))
    assert directory.find_stack() is None


def test_the_environment_wins_over_the_directory(
    directory: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    credentials = directory.credentials()
    directory.announce(Stack(os.getpid(), {"gateway": "127.0.0.1:7000", "session": "127.0.0.1:7002"}, {}))
    found = discover(operator=True, environ={"MINION_SESSION_ADDRESS": "elsewhere:50052"})
    assert found.credential == credentials.operator_key
    assert found.addresses["gateway"] == "127.0.0.1:7000"
    assert found.addresses["session"] == "elsewhere:50052"
    assert found.addresses["memory"] == "127.0.0.1:50053"
    assert discover(environ={"MINION_API_KEY": "mnk_given"}).credential == "mnk_given"


def test_without_a_credential_there_is_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FailedPrecondition) as refused:
        discover(environ={})
    assert refused.value.reason == "CREDENTIAL_MISSING"


@pytest.mark.parametrize("key", ["mnk_given\n", " mnk_given", "mnk_gïven", "mnk_given\nmnk_given", "k" * 5_000])
def test_a_credential_that_can_not_be_sent_is_refused_and_not_shown(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FailedPrecondition, match=r"^MINION_API_KEY can't be sent") as refused:
        discover(environ={"MINION_API_KEY": key})
    assert refused.value.reason == "CREDENTIAL_INVALID"
    assert key.strip() not in str(refused.value)
