"""Agents as files: what `agents create --file` reads and `agents get --format yaml` writes."""

from pathlib import Path

import pytest
import typer
import yaml
from minion.registry.v1 import agent_pb2
from minion_cli import output
from minion_cli.agents import from_file
from minion_cli.output import Format

FILE = """
name: support
behavior_type: tool_use
behavior:
  memory: {recall: true, episodes: true, extract: true, extractor: facts-1, extract_after_messages: 12}
  summary: {enabled: true, trigger_tokens: 3000, target_tokens: 200, keep_messages: 0, model: local/stand-in}
"""


def test_policies_are_read_and_written_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(FILE, encoding="utf-8")
    agent = from_file(path)
    assert agent.behavior.memory.extract_after_messages == 12
    assert agent.behavior.summary == agent_pb2.SummaryPolicy(
        enabled=True, trigger_tokens=3_000, target_tokens=200, keep_messages=0, model="local/stand-in"
    )
    output.show_one(agent, Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(FILE)
    output.show_one(agent, Format.TABLE)
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert shown["behavior.summary.trigger_tokens"] == "3000"
    assert shown["behavior.memory.episodes"] == "true"


def test_a_policy_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("behavior: {summary: {trigger: 5}}", encoding="utf-8")
    with pytest.raises(typer.BadParameter):
        from_file(path)
