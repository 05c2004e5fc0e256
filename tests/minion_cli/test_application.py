import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from minion_cli.__main__ import run
from minion_cli.application import command

ROOT = Path(__file__).parents[2]
_HELP = """
import sys
from minion_cli.__main__ import run
code = run(["--help"])
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"grpc", "openai", "pydantic", "asyncpg", "google"})
print(code, heavy, file=sys.stderr)
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HELP], cwd=ROOT, env=_environ(), capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "0 []"
    assert "demo" in done.stdout


def test_help_takes_less_than_half_a_second() -> None:
    def once() -> float:
        # Of the processor: that a busy machine makes it wait says nothing about the command.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "minion_cli", "--help"], cwd=ROOT, env=_environ(), capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.5


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in command().commands:
        assert run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"Usage: minion {name}")
        assert len(shown.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["agent"], "error: USAGE: No such command 'agent'. Did you mean 'agents'?"),
        (["--nonsense"], "error: USAGE: No such option: --nonsense"),
        (["agents", "list", "--status", "asleep"], "draft, active, inactive, archived"),
        (["agents", "list", "--label", "red"], "'red' is not key=value."),
        (["agents", "list", "-o", "xml"], "error: USAGE: Invalid value for '--output'"),
        (["migrate", "sideways"], "error: USAGE:"),
        (["migrate", "--service", "kitchen"], "'kitchen' is none of registry"),
        (["migrate", "down", "--bootstrap"], "goes with `up` alone."),
        (["agents", "create", "--file", "/nowhere/agent.yaml"], "/nowhere/agent.yaml holds no agent"),
        (["agents", "bind", "a", "t", "--configuration", "[1]"], "--configuration: is no JSON object"),
        (["tools", "register", "--file", "/nowhere/tool.yaml"], "/nowhere/tool.yaml holds no tool"),
        (["tools", "list", "--status", "asleep"], "active, deprecated, retired"),
        (["tools", "list", "--label", "red"], "'red' is not key=value."),
        (["tools", "validate", "t", "{"], "is no JSON object"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert len(captured.err.splitlines()) == 1


def test_no_credential_is_one_line_and_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINION_API_KEY", raising=False)
    assert run(["agents", "list"]) == 1
    assert re.fullmatch(r"error: CREDENTIAL_MISSING: [^\n]+\n", capsys.readouterr().err)


def test_nobody_there_is_one_line_and_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINION_API_KEY", "mnk_" + "x" * 43)
    monkeypatch.setenv("MINION_REGISTRY_ADDRESS", "127.0.0.1:1")
    assert run(["agents", "list"]) == 1
    assert re.fullmatch(r"error: SERVICE_UNREACHABLE: [^\n]+127\.0\.0\.1:1[^\n]+\n", capsys.readouterr().err)


def test_all_wrong_settings_are_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINION_API_KEY", "mnk_" + "x" * 43)
    monkeypatch.setenv("MINION_LOG_LEVEL", "loud")
    monkeypatch.setenv("MINION_TRACE_RATIO", "2")
    monkeypatch.setenv("MINION_CLIENT_KEY", str(tmp_path / "gone"))
    assert run(["agents", "list"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: SETTINGS_INVALID: [^\n]+\n", told)
    for variable in ("MINION_LOG_LEVEL", "MINION_TRACE_RATIO", "MINION_CLIENT_CERTIFICATE", "MINION_CLIENT_KEY"):
        assert variable in told


def test_a_fault_of_ours_shows_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minion_cli.connection.asyncio.run", _fail)
    monkeypatch.setenv("MINION_API_KEY", "mnk_" + "x" * 43)
    assert run(["agents", "list"]) == 1
    assert capsys.readouterr().err == "error: INTERNAL: ZeroDivisionError: two lines\n"
    monkeypatch.setenv("MINION_LOG_LEVEL", "debug")
    assert run(["agents", "list"]) == 1
    assert "Traceback" in capsys.readouterr().err


def _fail(coroutine: object) -> None:
    coroutine.close()  # type: ignore[attr-defined]
    raise ZeroDivisionError("two\nlines")


def _environ() -> dict[str, str]:
    return {"PYTHONPATH": "services:shared", "PATH": "/usr/bin:/bin"}
