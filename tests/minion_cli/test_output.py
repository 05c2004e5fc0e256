import json

import pytest
import typer
import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from minion.gateway.v1 import run_pb2
from minion.registry.v1 import agent_pb2
from minion_cli import output
from minion_cli.output import Column, Format

_AGENTS = [
    agent_pb2.Agent(name="ada", agent_id="a" * 36, revision=1, description="first\nsecond line"),
    agent_pb2.Agent(name="grace", agent_id="b" * 36, revision=12, description="x" * 300),
]
_COLUMNS = (
    Column("NAME", lambda agent: agent.name),
    Column("REVISION", lambda agent: str(agent.revision), right=True),
    Column("AGENT ID", lambda agent: agent.agent_id),
    Column("DESCRIPTION", lambda agent: agent.description, wide=True),
)


def test_a_table_keeps_whole_values_and_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(_AGENTS, _COLUMNS, Format.TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "ada", "grace"]
    assert "first second line" in lines[1]
    assert "b" * 36 in lines[2]
    assert "x" * 300 in lines[2]


def test_json_and_yaml_are_lists_in_the_contracts_names(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(_AGENTS, _COLUMNS, Format.JSON)
    as_json = json.loads(capsys.readouterr().out)
    output.show_list(_AGENTS, _COLUMNS, Format.YAML)
    as_yaml = yaml.safe_load(capsys.readouterr().out)
    assert as_json == as_yaml
    assert [agent["agent_id"] for agent in as_json] == ["a" * 36, "b" * 36]


def test_an_empty_table_prints_nothing_to_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list([], _COLUMNS, Format.TABLE)
    assert capsys.readouterr().out == ""
    output.show_list([], _COLUMNS, Format.JSON)
    assert json.loads(capsys.readouterr().out) == []


def test_one_message_is_a_field_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    agent = agent_pb2.Agent(name="ada", llm=agent_pb2.LlmConfig(model="local/stand-in"), labels={"team": "red"})
    output.show_one(agent, Format.TABLE)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["llm.model", "local/stand-in"] in lines
    assert ["labels.team", "red"] in lines


def test_enums_are_written_and_read_without_their_prefix() -> None:
    assert output.enum_text(agent_pb2.AgentStatus, agent_pb2.AGENT_STATUS_ACTIVE) == "active"
    value = output.enum_value(run_pb2.RunState, "input-required", "--state")
    assert value == run_pb2.RUN_STATE_INPUT_REQUIRED
    assert output.enum_value(run_pb2.RunState, None, "--state") == 0
    with pytest.raises(typer.BadParameter, match="submitted, working"):
        output.enum_value(run_pb2.RunState, "unspecified", "--state")


@pytest.mark.parametrize(
    ("nanos", "text"), [(0, "$0.000000"), (1_500_000, "$0.001500"), (20, "$0.000000020"), (10**9, "$1.000000")]
)
def test_money_never_rounds_to_nothing(nanos: int, text: str) -> None:
    assert output.dollars(nanos) == text


def test_an_unknown_cost_is_not_zero() -> None:
    assert output.cost_text(run_pb2.Run()) == "unknown"
    assert output.cost_text(run_pb2.Run(cost_nanos=0)) == "$0.000000"


def test_times_durations_and_values() -> None:
    assert output.time_text(Timestamp()) == ""
    assert output.time_text(Timestamp(seconds=1_700_000_000)) == "2023-11-14 22:13:20"
    assert output.duration_text(Duration(nanos=12_400_000)) == "12 ms"
    assert output.duration_text(Duration(seconds=2, nanos=500_000_000)) == "2.50 s"
    assert output.as_json(Value(number_value=391)) == "391"
    assert output.as_json(Value(number_value=0.5)) == "0.5"
