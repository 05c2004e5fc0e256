"""The checker of rules and dashboards: clean as delivered, and a typo planted anywhere is told with its place."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.checks import dashboards, metric_tables, monitoring, promql, promtool, rules
from deploy.checks.queries import Asked
from tests.deploy.monitored import needed

ROOT = Path(__file__).parents[2]
_SERIES = {
    "calls_total": frozenset({"job", "instance", "service", "code"}),
    "seconds_bucket": frozenset({"job", "instance", "service", "le"}),
    "up": frozenset({"job", "instance"}),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the checker reads, to be spoilt."""
    for part in ("deploy/prometheus", "deploy/grafana", "deploy/checks/foreign_metrics.md", "docs/metrics.md"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target)
        else:
            shutil.copy(ROOT / part, target)
    return tmp_path


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_delivered_is_clean() -> None:
    needed("promtool")
    command = [sys.executable, "-m", "deploy.checks.monitoring"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\d{3} queries", done.stdout)


def test_every_query_is_listed_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert monitoring.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "deploy/grafana/dashboards/runs.json: panel 'Tokens', query A\n    sum by (kind)" in listed
    assert "deploy/prometheus/rules/services.yml: alert MinionServiceDown\n    up{" in listed


# Where a typo is planted, what stands there, what is written instead, and what must be said of it: the file, the panel
# or the rule, and the fault.
_TYPOS = {
    "a metric in a dashboard": (
        "deploy/grafana/dashboards/runs.json",
        "sum by (kind) (rate(llm_tokens_total{",
        "sum by (kind) (rate(llm_token_total{",
        "runs.json: panel 'Tokens', query A: no metric llm_token_total",
    ),
    "a label in a dashboard": (
        "deploy/grafana/dashboards/postgres.json",
        "sum by (state) (pg_stat_activity_count",
        "sum by (status) (pg_stat_activity_count",
        "panel 'Connections by state', query A: no label status for `by` of sum",
    ),
    "a label of a legend": (
        "deploy/grafana/dashboards/runs.json",
        "{{plan}}",
        "{{plans}}",
        "panel 'Memory searches', query A: shows the label plans",
    ),
    "a label of a matcher in a rule": (
        "deploy/prometheus/rules/runs.yml",
        'llm_cost_usd_total{job="minion"}[1h]',
        'llm_cost_usd_total{jobs="minion"}[1h]',
        "runs.yml: alert MinionCostJump: llm_cost_usd_total has no label jobs",
    ),
    "a label of an annotation": (
        "deploy/prometheus/rules/postgres.yml",
        'summary: "Deadlocks in {{ $labels.datname }}"',
        'summary: "Deadlocks in {{ $labels.database }}"',
        "alert MinionPostgresDeadlocks: shows the label database",
    ),
    "a recorded name": (
        "deploy/prometheus/rules/services.yml",
        "grpc_service:grpc_server_errors:ratio_rate5m > 0.05",
        "grpc_service:grpc_server_errors:ratio > 0.05",
        "alert MinionRpcErrors: no metric grpc_service:grpc_server_errors:ratio",
    ),
    "a variable": (
        "deploy/grafana/dashboards/overview.json",
        'service=~\\"$service\\"}) - sum',
        'service=~\\"$services\\"}) - sum',
        "panel 'Calls under way': no variable $services",
    ),
    "a datasource": (
        "deploy/grafana/provisioning/datasources/minion.yml",
        "uid: minion-prometheus",
        "uid: prometheus",
        "no datasource 'minion-prometheus' of type prometheus is provisioned",
    ),
    "a unit": (
        "deploy/grafana/dashboards/overview.json",
        '"unit": "percentunit"',
        '"unit": "percents"',
        '"percents" is not one of',
    ),
    "a key": (
        "deploy/grafana/dashboards/overview.json",
        '"gridPos"',
        '"gridpos"',
        "overview.json: panels",
    ),
    "JSON": ("deploy/grafana/dashboards/overview.json", '"panels": [', '"panels": [,', "overview.json: "),
    "a severity": (
        "deploy/prometheus/rules/runs.yml",
        "labels: {severity: critical}",
        "labels: {severity: crucial}",
        "alert MinionRunsFailing: `severity` is not one of critical, info, warning",
    ),
    "the name of an annotation": (
        "deploy/prometheus/rules/runs.yml",
        "          action: >-",
        "          acton: >-",
        "alert MinionRunsFailing: no `action`",
    ),
    "the name of an alert": (
        "deploy/prometheus/rules/services.yml",
        "alert: MinionPoolTimeouts",
        "alert: MinionPoolTimeout",
        "alert MinionPoolTimeout: no test in deploy/prometheus/tests in which it fires",
    ),
    "a table's row": (
        "docs/metrics.md",
        "| `llm_cost_usd_total` | counter |",
        "| `llm_cost_usd_total` | conter |",
        "not `| metric | type | labels | services | meaning |`",
    ),
}
_PROMTOOL_TYPOS = {
    "PromQL in a dashboard": (
        "deploy/grafana/dashboards/overview.json",
        'count(up{job=\\"minion\\", service=~\\"$service\\"})',
        'count(up{job=\\"minion\\", service=~\\"$service\\"}',
        "overview.json: panel 'Services up', query B: could not parse expression",
    ),
    "a function in a dashboard": (
        "deploy/grafana/dashboards/runs.json",
        "sum by (kind) (rate(",
        "sum by (kind) (rat(",
        "runs.json: panel 'Tokens', query A: could not parse expression",
    ),
    "PromQL in a rule": (
        "deploy/prometheus/rules/postgres.yml",
        "(increase(pg_stat_database_deadlocks{",
        "(increase((pg_stat_database_deadlocks{",
        "postgres.yml: alert MinionPostgresDeadlocks: could not parse expression",
    ),
    "Prometheus' configuration": (
        "deploy/prometheus/prometheus.yml",
        "scrape_configs:",
        "scrape_config:",
        "field scrape_config not found",
    ),
    "a duration": (
        "deploy/prometheus/prometheus.yml",
        "scrape_interval: 15s",
        "scrape_interval: 15 sec",
        "promtool check config deploy/prometheus/prometheus.yml",
    ),
    "a template": (
        "deploy/prometheus/rules/services.yml",
        "{{ $labels.service }} is down",
        "{{ $labels.service } is down",
        "services.yml",
    ),
}


@pytest.mark.parametrize("what", _TYPOS)
def test_a_planted_typo_is_told_with_its_place(copy: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What promtool has to say is tested below: it takes seconds.
    monkeypatch.setattr(promtool, "faults", lambda *_: ())
    path, old, new, told = _TYPOS[what]
    _replace(copy / path, old, new)
    found = monitoring.faults(copy)
    assert [fault for fault in found if told in fault], found


@pytest.mark.parametrize("what", _PROMTOOL_TYPOS)
def test_a_planted_typo_is_told_by_promtool(copy: Path, what: str) -> None:
    needed("promtool")
    path, old, new, told = _PROMTOOL_TYPOS[what]
    shutil.rmtree(copy / rules.TESTS)  # they take long, and have a test of their own
    _replace(copy / path, old, new)
    found = list(promtool.faults(copy, monitoring.queries(copy)))
    assert [fault for fault in found if told in fault], found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("eval_time: 4m", "eval_time: 1m"),
        ("values: 1x4 0x20", "values: 1x30"),
        ("alertname: MinionPostgresDown", "alrt: x"),
    ],
)
def test_a_rules_test_that_is_wrong_fails(copy: Path, old: str, new: str) -> None:
    needed("promtool")
    for path in (copy / rules.TESTS).glob("*.yml"):
        if path.name != "postgres.yml":
            path.unlink()
    assert list(promtool.faults(copy, ())) == []
    _replace(copy / rules.TESTS / "postgres.yml", old, new)
    found = list(promtool.faults(copy, ()))
    assert len(found) == 1
    assert "promtool test rules deploy/prometheus/tests/postgres.yml" in found[0]


def test_the_command_fails_with_all_faults_at_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed("promtool")
    shutil.rmtree(copy / rules.TESTS)
    for what in ("a metric in a dashboard", "a label of a matcher in a rule"):
        path, old, new, _ = _TYPOS[what]
        _replace(copy / path, old, new)
    assert monitoring.main([str(copy)]) == 1
    told = capsys.readouterr().err
    assert "no metric llm_token_total" in told
    assert "has no label jobs" in told
    assert "no test of rules" in told
    assert all(line.startswith("error: ") for line in told.splitlines())


def test_without_promtool_it_says_which_package_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert monitoring.main([]) == 2
    assert "apt-get install prometheus" in capsys.readouterr().err


def _spoilt(copy: Path, change: Callable[[dict[str, Any]], object]) -> list[str]:
    path = copy / dashboards.DASHBOARDS / "overview.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return list(dashboards.faults(copy, dashboards.read(copy)))


def _panel(content: dict[str, Any], number: int = 1) -> dict[str, Any]:
    panel: dict[str, Any] = [panel for panel in content["panels"] if panel["type"] != "row"][number]
    return panel


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: _panel(content)["gridPos"].update(x=22), "reaches over the right edge"),
        (lambda content: _panel(content)["gridPos"].update(x=0), "lies over 'Firing alerts'"),
        (lambda content: _panel(content).update(id=_panel(content, 2)["id"]), "is another panel's"),
        (lambda content: content.update(uid="minion-runs"), "its uid minion-runs is that of"),
        (lambda content: _panel(content).pop("description"), '"description" is a required property'),
        (lambda content: _panel(content)["fieldConfig"]["defaults"].pop("unit"), '"unit" is a required property'),
        (lambda content: _panel(content)["datasource"].update(uid="other"), "no datasource 'other'"),
        (lambda content: _panel(content).update(targets=[]), "targets"),
        (lambda content: _panel(content, 0)["targets"][1].update(refId="A"), "the same refId"),
        (lambda content: content.update(schemaVersion=16), "schemaVersion"),
        (lambda content: content["templating"].update(list=[]), "no variable $service"),
        (
            lambda content: content["templating"]["list"][0].update(definition="label_values(up, job)"),
            "not its definition",
        ),
    ],
)
def test_a_dashboard_that_would_look_wrong_is_told(
    copy: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    assert [fault for fault in _spoilt(copy, change) if told in fault]


def _of(expression: str) -> promql.Query:
    return promql.read(expression, _SERIES)


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("calls_total", "job instance service code"),
        ("sum(calls_total)", ""),
        ('sum by (code) (rate(calls_total{service=~"gateway|memory"}[5m]))', "code"),
        ("sum(calls_total) by (service, code)", "service code"),
        ("sum without (instance, job) (calls_total offset 1h)", "service code"),
        ("histogram_quantile(0.9, sum by (service, le) (rate(seconds_bucket[1m])))", "service"),
        ("topk(3, calls_total)", "job instance service code"),
        ("3600 * sum by (code) (calls_total) > 1 and up", "code"),
        ("calls_total / on (job) group_left () up", "job instance service code"),
        ("sum by (code) (calls_total) / ignoring (code) group_left () sum(calls_total)", "code"),
        ('label_replace(up, "host", "$1", "instance", "(.*):.*")', "job instance host"),
        ("time() - up", "job instance"),
        ("vector(1)", ""),
        ("-up or 0 * up # a comment", "job instance"),
        ("vector(0) or up @ end()", "job instance"),
        ("max_over_time(sum by (job) (up)[1h:5m] offset -1d)", "job"),
        ("up * on (job, instance) group_right () calls_total", "job instance service code"),
        ("scalar(sum(up)) * sum by (code) (calls_total)", "code"),
        ("limitk by (code) (2, calls_total)", "job instance service code"),
        ("quantile by (service) (0.9, calls_total)", "service"),
        ('count_values by (job) ("value", up)', "job value"),
        ('label_join(up, "place", "/", "job", "instance")', "job instance place"),
        ("day_of_week()", ""),
        ('absent(up{job="minion", instance=~"a.*"})', "job"),
        ("absent_over_time((up{job='minion'}[5m]))", "job"),
        ('absent(up{job="minion", job!=""})', ""),
        ("absent(sum(up))", ""),
    ],
)
def test_a_queries_labels_are_known(expression: str, labels: str) -> None:
    query = _of(expression)
    assert query.faults == ()
    assert query.labels == set(labels.split())


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("call_total", "no metric call_total"),
        ('calls_total{cod="OK"}', "calls_total has no label cod"),
        ("sum by (host) (calls_total)", "no label host for `by` of sum"),
        ("sum by (code) (sum by (service) (calls_total))", "no label code for `by` of sum"),
        ("histogram_quantile(0.9, sum by (service) (seconds_bucket))", "no label le for histogram_quantile"),
        ("sum by (code) (calls_total) / sum(calls_total)", "never match: (code) and ()"),
        ("up / on (code) calls_total", "no label code for `on` of /"),
        ("up * on (job) group_left (version) calls_total", "no label version for group_left"),
        ("up * on (job) group_right (version) calls_total", "no label version for group_right"),
        ('calls_total{job="minion", code="OK" or cod="OK"}', "calls_total has no label cod"),
        ('label_replace(up, "host", "$1", "inst", "(.*)")', "no label inst for label_replace"),
        ('label_join(up, "place", "/", "job", "inst")', "no label inst for label_join"),
        ("quantile(scalar(ups), up)", "no metric ups"),
        ("rate(ups[5m:1m])", "no metric ups"),
        ("sum(up", "can't be read: unclosed left parenthesis"),
        ("rat(up[5m])", "can't be read: unknown function with name 'rat'"),
        ('{job="minion"}', "a selector without a metric's name"),
    ],
)
def test_what_a_query_can_never_find_is_told(expression: str, fault: str) -> None:
    assert any(fault in told for told in _of(expression).faults), _of(expression).faults


def test_what_an_alert_compares_is_known_without_the_threshold() -> None:
    assert _of("up == 0").operands == ("up",)
    assert _of("sum(up) / 2 > 0.5 and calls_total > 3").operands == ("sum(up) / 2", "calls_total")
    assert _of("(up offset 5m) * 2 >= bool scalar(sum(up))").operands == ("(up offset 5m) * 2",)
    assert _of(r'calls_total{code=~"a\\.\"b"} < up').operands == (r'calls_total{code=~"a\\.\"b"}', "up")
    assert _of("sum(up)").operands == ("sum(up)",)


def test_variables_are_filled_as_grafana_fills_them() -> None:
    asked = Asked(Path("x"), "y", 'rate(up{a=~"$service"}[$__rate_interval]) + ${service:regex}', {"service": ".*"})
    assert asked.filled() == 'rate(up{a=~".*"}[1m]) + .*'


def test_a_histogram_has_its_series(copy: Path) -> None:
    series = metric_tables.known_series(copy)
    assert series["llm_latency_seconds_bucket"] == series["llm_latency_seconds_count"] | {"le"}
    assert "llm_latency_seconds" not in series
    assert "service" in series["active_sessions"]
    assert "service" not in series["pg_up"]


def test_nothing_stands_in_the_table_of_others_that_nobody_asks_for() -> None:
    ours = metric_tables.known_series(ROOT)
    asked = set().union(*(promql.read(each.filled(), ours).metrics for each in monitoring.queries(ROOT)))
    foreign = {name for name in ours if name.startswith("pg_") or name in {"up", "ALERTS"}}
    listed = re.findall(r"^\| `(\w+)`", (ROOT / metric_tables.OTHERS).read_text(), re.MULTILINE)
    assert set(listed) == foreign == foreign & asked


def test_what_texts_refer_to_is_there() -> None:
    alerts = {rule.alert for rule in rules.read(ROOT) if rule.alert}
    texts = "".join(
        path.read_text() for path in [*(ROOT / rules.RULES).iterdir(), *(ROOT / dashboards.DASHBOARDS).iterdir()]
    )
    assert set(re.findall(r"\bMinion[A-Z]\w+", texts)) == alerts
    settings = (ROOT / ".env.example").read_text()
    for name in re.findall(r"\b(?:MINION|OTEL)_[A-Z_]+", texts):
        assert f"{name}=" in settings, name


def test_every_alert_and_dashboard_is_explained_to_operators() -> None:
    told = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("operating*.md")))
    for rule in rules.read(ROOT):
        if rule.alert:
            assert f"| `{rule.alert}` | {rule.labels['severity']} |" in told
    for dashboard in dashboards.read(ROOT):
        assert f"**{dashboard.content['title']}**" in told


def test_a_missing_table_is_told(copy: Path) -> None:
    (copy / metric_tables.OURS).unlink()
    assert monitoring.faults(copy) == ["docs/metrics.md: no such file"]
    (copy / metric_tables.OURS).write_text("# Metrics\n")
    assert monitoring.faults(copy) == ["docs/metrics.md: no table of metrics"]
