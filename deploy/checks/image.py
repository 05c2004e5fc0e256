"""Reads deploy/Dockerfile as far as it can be checked with no engine: what it copies, and what it sets.

`python -m deploy.checks.image [FOLDER]` tells every fault, a line each, and ends with 1 where there is one.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.checks.commands import argument_faults, script_faults

FILE = "deploy/Dockerfile"
_SHELL = re.compile(r"[;&|<>`*]|\$\(")
_FLAG = re.compile(r"--[\w-]+=\S+\s+")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_EXEC_FORM = {"ENTRYPOINT", "CMD"}
_MAKING = {"RUN", "COPY", "WORKDIR"}
_SOURCE = re.compile(r"\bsource=([^,\s]+)")
_FILE_NAME = re.compile(r"\w[\w.-]*\.(lock|txt|py|toml)")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: `flags` are what stands before its arguments, as in `--from=dependencies`."""

    line: int
    instruction: str
    flags: tuple[str, ...]
    arguments: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, by its name, and its steps."""

    name: str
    base: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The stages in their order; the last one is the image."""

    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the file of a folder. Raises ValueError where it can't be followed."""
        arguments: dict[str, str] = {}
        stages: list[Stage] = []
        steps: list[Step] = []
        for step in _steps((folder / FILE).read_text()):
            if step.instruction == "FROM":
                base, _, name = step.arguments.partition(" AS ")
                steps = []
                stages.append(Stage(name, _filled(base, arguments), ()))
                continue
            if step.instruction == "ARG" and not stages:
                name, _, value = step.arguments.partition("=")
                arguments[name] = value
                continue
            steps.append(step)
            stages[-1] = Stage(stages[-1].name, stages[-1].base, tuple(steps))
        if not stages:
            raise ValueError(f"{FILE} has no FROM")
        return cls(arguments, tuple(stages))

    @property
    def image(self) -> Stage:
        """The last stage."""
        return self.stages[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What the image sets, with the defaults of its arguments."""
        return environment(self.image)


def environment(stage: Stage) -> dict[str, str]:
    """Gives what a stage sets, with the defaults of its arguments."""
    known: dict[str, str] = {}
    found: dict[str, str] = {}
    for step in stage.steps:
        if step.instruction not in ("ARG", "ENV"):
            continue
        for part in shlex.split(step.arguments):
            name, _, value = part.partition("=")
            known[name] = _filled(value, known)
            if step.instruction == "ENV":
                found[name] = known[name]
    return found


def faults(folder: Path) -> Iterator[str]:
    """Yields what is wrong with the file of a folder, in words."""
    dockerfile = Dockerfile.read(folder)
    ignored = Ignored((folder / ".dockerignore").read_text())
    earlier: dict[str, Stage] = {}
    for stage in dockerfile.stages:
        if not re.search(r":\d+\.\d+", stage.base):
            yield f"stage {stage.name} stands on {stage.base}, which is pinned by no version"
        for step in stage.steps:
            yield from (f"line {step.line}: {fault}" for fault in _step_faults(step, folder, ignored, earlier))
        yield from (f"line {line}: {fault}" for line, fault in _file_faults(stage))
        earlier[stage.name] = stage
    said = {step.instruction: step.arguments for step in dockerfile.image.steps}
    yield from (
        f"{name} is missing" for name in ("USER", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT") if name not in said
    )
    yield from _command_faults(folder, dockerfile)
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", said.get("USER", "")):
        yield "USER must be a number that is not 0, so that a cluster can tell that it isn't root"
    if not said.get("HEALTHCHECK", "").partition("CMD ")[2].startswith("["):
        yield "HEALTHCHECK must not need a shell"


def _step_faults(step: Step, folder: Path, ignored: "Ignored", earlier: Mapping[str, Stage]) -> Iterator[str]:
    source = next((flag.partition("=")[2] for flag in step.flags if flag.startswith("--from=")), None)
    for flag in step.flags:
        stage = re.search(r"\bfrom=([\w-]+)", flag)
        if stage is not None and stage[1] not in earlier:
            yield f"there is no stage {stage[1]} above"
        elif stage is not None:
            mounted = _SOURCE.search(flag)
            wanted = [mounted[1]] if mounted else shlex.split(step.arguments)[:-1]
            made = _words(earlier[stage[1]])
            yield from (f"takes {each} from {stage[1]}, where nothing makes it" for each in wanted if each not in made)
    if step.instruction == "COPY" and source is None:
        for path in shlex.split(step.arguments)[:-1]:
            if not (folder / path).exists():
                yield f"copies {path}, which there is not"
            elif ignored.hides(path):
                yield f"copies {path}, which .dockerignore leaves out"
    if step.instruction == "RUN" and _SHELL.search(step.arguments):
        yield "RUN takes a shell's tricks: make it one plain command"
    if step.instruction in _EXEC_FORM:
        try:
            json.loads(step.arguments)
        except ValueError:
            yield f"{step.instruction} must be in exec form"


def _words(stage: Stage) -> set[str]:
    """Everything that a stage names: what is taken from it must be among this."""
    return {word for step in stage.steps if step.instruction in _MAKING for word in step.arguments.split()}


def _file_faults(stage: Stage) -> Iterator[tuple[int, str]]:
    """Yields relative files that a RUN takes and no COPY before it has brought, each with its line."""
    brought: set[str] = set()
    for step in stage.steps:
        if step.instruction == "COPY":
            brought.update(Path(path).name for path in shlex.split(step.arguments)[:-1])
        if step.instruction == "RUN" and not _SHELL.search(step.arguments):
            for word in shlex.split(step.arguments):
                if _FILE_NAME.fullmatch(word) and word not in brought:
                    yield step.line, f"RUN takes {word}, which nothing above copies"


def _command_faults(folder: Path, dockerfile: Dockerfile) -> Iterator[str]:
    """Yields programs and subcommands that the image hasn't."""
    for step in dockerfile.image.steps:
        said = step.arguments.partition("CMD ")[2] if step.instruction == "HEALTHCHECK" else step.arguments
        if step.instruction not in {*_EXEC_FORM, "HEALTHCHECK"} or not said.startswith("["):
            continue
        words: list[str] = json.loads(said)
        if step.instruction != "CMD":
            yield from (f"line {step.line}: {fault}" for fault in script_faults(folder, words.pop(0)))
        if words:
            yield from (f"line {step.line}: {fault}" for fault in argument_faults(words))


class Ignored:
    """What .dockerignore leaves out of the build's context: its last line that fits decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (not line.startswith("!"), _pattern(line.removeprefix("!").strip("/")))
            for line in lines
            if line and not line.startswith("#")
        ]

    def hides(self, path: str) -> bool:
        """Tells whether a file or folder stays outside."""
        parts = path.strip("/").split("/")
        places = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        hidden = False
        for hides, pattern in self._rules:
            if any(pattern.fullmatch(place) for place in places):
                hidden = hides
        return hidden


def _pattern(rule: str) -> re.Pattern[str]:
    parts = [
        "(?:.*/)?" if part == "**/" else ".*" if part == "**" else "[^/]*" if part == "*" else re.escape(part)
        for part in re.split(r"(\*\*/|\*\*|\*)", rule)
    ]
    return re.compile("".join(parts))


def _steps(text: str) -> Iterator[Step]:
    whole, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not whole and (not line.strip() or line.startswith("#")):
            continue
        first = first if whole else number
        whole += line.removesuffix("\\").strip() + " "
        if line.endswith("\\"):
            continue
        instruction, _, rest = whole.strip().partition(" ")
        flags = []
        while (flag := _FLAG.match(rest)) is not None:
            flags.append(flag[0].strip())
            rest = rest[flag.end() :]
        yield Step(first, instruction, tuple(flags), rest.strip())
        whole = ""


def _filled(text: str, known: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1], ""), text)


def main() -> int:
    """Checks the folder given, or this one; returns the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    found = list(faults(folder))
    for fault in found:
        print(
            f"{FILE}:{fault.removeprefix('line ')}" if fault.startswith("line ") else f"{FILE}: {fault}",
            file=sys.stderr,
        )
    if not found:
        print(f"{FILE}: all that it copies is there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
