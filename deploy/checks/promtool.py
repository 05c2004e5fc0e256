"""Asks promtool: is each query valid, do the rules' own tests pass, is Prometheus' configuration one?"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from deploy.checks.queries import Asked
from deploy.checks.rules import TESTS

CONFIGURATION = Path("deploy/prometheus/prometheus.yml")
_SECONDS = 300
_WELL = re.compile(r"\s*(SUCCESS|Checking |Unit Testing)")
_BAD_QUERY = re.compile(r'group "(?P<place>(?:[^"\\]|\\.)*)", rule \d+, "[^"]*": (?P<fault>.*)')


class PromtoolMissingError(Exception):
    """There is no promtool on this machine."""


def faults(root: Path, asked: Sequence[Asked]) -> Iterator[str]:
    """Tells what promtool has to say against these queries, the configuration with its rules, and their tests.

    Raises PromtoolMissingError.
    """
    if shutil.which("promtool") is None:
        raise PromtoolMissingError("promtool is missing: install Prometheus (Debian: apt-get install prometheus)")
    yield from _bad_queries(asked)
    yield from _said("check", "config", CONFIGURATION, root=root)
    tests = sorted(path.relative_to(root) for path in (root / TESTS).glob("*.yml"))
    yield from _said("test", "rules", *tests, root=root) if tests else (f"{TESTS}: no test of rules",)


def _bad_queries(asked: Sequence[Asked]) -> Iterator[str]:
    """promtool checks files of rules: each query becomes one, in a group that is called as the query's place."""
    groups = [
        {"name": f"{number} {query.place}", "rules": [{"record": "checked", "expr": query.filled()}]}
        for number, query in enumerate(asked)
    ]
    with tempfile.TemporaryDirectory(prefix="minion-check-") as directory:
        path = Path(directory) / "queries.yml"
        path.write_text(yaml.safe_dump({"groups": groups}))
        done = _run("check", "rules", "--lint=none", path, root=Path(directory))
    if done.returncode == 0:
        return
    found = [match for line in (done.stdout + done.stderr).splitlines() if (match := _BAD_QUERY.search(line))]
    for match in found:
        yield f"{match['place'].partition(' ')[2].encode().decode('unicode_escape')}: {match['fault']}"
    if not found:
        yield f"promtool check rules: {(done.stdout + done.stderr).strip()}"


def _said(*arguments: str | Path, root: Path) -> Iterator[str]:
    done = _run(*arguments, root=root)
    if done.returncode:
        # Of what went well it tells too.
        told = [line for line in (done.stderr + done.stdout).splitlines() if line.strip() and not _WELL.match(line)]
        yield f"promtool {' '.join(map(str, arguments))}:\n" + "\n".join(told)


def _run(*arguments: str | Path, root: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *map(str, arguments)], cwd=root, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
