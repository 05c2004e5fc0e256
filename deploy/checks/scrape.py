"""Checks prometheus.yml against the rules that it loads and the names that rules and dashboards ask for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minion_cli.development.ports import DOCUMENTED

from deploy.checks.doors import PROMETHEUS
from deploy.checks.label_values import JOBS
from deploy.checks.places import Source, hint
from deploy.checks.rules import RULES

_OURS = "minion"


def faults(root: Path) -> Iterator[str]:
    """Yields rules that nobody loads, and targets under names that no query asks for; with file and line."""
    source = Source.read(root, PROMETHEUS)
    folder = (root / PROMETHEUS).parent
    loaded: set[Path] = set()
    for pattern in source.content.get("rule_files", ()):
        found = set(folder.glob(pattern))
        if not found:
            yield f"{source.at(pattern)}: {pattern} fits no file"
        loaded |= found
    for path in sorted(set((root / RULES).glob("*.yml")) - loaded):
        yield f"{source.at('rule_files')}: {path.relative_to(root)} is not loaded"
    jobs: dict[str, Any] = {job.get("job_name", ""): job for job in source.content.get("scrape_configs", ())}
    for name in jobs:
        if name not in JOBS:
            yield f"{source.at(f'job_name: {name}')}: no query asks for the job {name}{hint(name, JOBS)}"
    for name in sorted(JOBS - set(jobs)):
        yield f"{source.at('scrape_configs')}: there is no job {name}, for which queries ask"
    if _OURS in jobs:
        yield from _target_faults(source, jobs[_OURS])


def _target_faults(source: Source, job: Any) -> Iterator[str]:
    asked: set[str] = set()
    for group in job.get("static_configs", ()):
        service = group.get("labels", {}).get("service", "")
        asked.add(service)
        for target in group.get("targets", ()):
            if service not in DOCUMENTED:
                place = source.at(target, "labels")
                yield f"{place}: {target} is labelled as the service {service}{hint(service, DOCUMENTED)}"
            elif target != f"{service}:{DOCUMENTED[service].operations}":
                wanted = f"{service}:{DOCUMENTED[service].operations}"
                yield f"{source.at(target)}: the service {service} shows its metrics at {wanted}, not at {target}"
    for name in DOCUMENTED:
        if name not in asked:
            yield f"{source.at(f'job_name: {_OURS}')}: nobody asks the service {name}"
