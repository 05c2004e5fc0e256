"""Runs the benchmarks: `python -m benchmarks [--only F13] [--json FILE] [--short]`.

Each figure is printed as a row; with `--json` each is also written as one JSON object a line. The exit code is 1 when
a figure misses its goal (not with `--short`, whose few rounds prove only that the benchmark runs).
"""

import argparse
import asyncio
import dataclasses
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks.figure import Figure, Options


def main() -> int:
    """Runs what was asked for and returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="one figure, such as F13")
    parser.add_argument("--json", type=Path, help="write one JSON object a line to this file")
    parser.add_argument("--short", action="store_true", help="few rounds, no verdict")
    arguments = parser.parse_args()
    modules = [module for module in _modules() if not arguments.only or arguments.only in _ids(module)]
    if not modules:
        parser.error(f"no benchmark measures {arguments.only!r}")
    figures: list[Figure] = []
    print(_row("id", "figure", "value", "yardstick", "ratio", "goal", "ok"))
    for module in modules:
        for figure in _measured(module, Options(short=arguments.short)):
            if arguments.only and figure.id != arguments.only:
                continue
            figures.append(figure)
            print(_describe(figure), flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(dataclasses.asdict(figure)) + "\n" for figure in figures))
    missed = any(figure.ok is False for figure in figures)
    return 1 if missed and not arguments.short else 0


def _measured(module: ModuleType, options: Options) -> list[Figure]:
    # A module that calls as services do says on which event loop they run.
    with asyncio.Runner(loop_factory=getattr(module, "LOOP_FACTORY", None)) as runner:
        figures: list[Figure] = runner.run(module.measure(options))
    return figures


def _modules() -> Iterable[ModuleType]:
    for found in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda module: module.name):
        if found.name.startswith("f") and found.name[1:3].isdigit():
            yield importlib.import_module(f"benchmarks.{found.name}")


def _ids(module: ModuleType) -> tuple[str, ...]:
    ids: str | tuple[str, ...] = module.ID
    return (ids,) if isinstance(ids, str) else ids


def _describe(figure: Figure) -> str:
    yardstick = "-" if figure.yardstick_value is None else f"{figure.yardstick_value:,.4g} {figure.unit}"
    ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
    verdict = {True: "yes", False: "NO", None: "-"}[figure.ok]
    return _row(
        figure.id, figure.name, f"{figure.value:,.4g} {figure.unit}", yardstick, ratio, figure.goal or "-", verdict
    )


def _row(id_: str, name: str, value: str, yardstick: str, ratio: str, goal: str, verdict: str) -> str:
    return f"{id_:<4} {name:<52} {value:>16} {yardstick:>16} {ratio:>6}  {goal:<16} {verdict}"


if __name__ == "__main__":
    sys.exit(main())
