"""Replays deploy/Dockerfile with no engine: each stage's COPY and RUN in a folder of its own, with this Python.

`python -m deploy.checks.replay FOLDER` leaves the image's tree in FOLDER/minion and tells what it weighs. It needs a
package index, as a build does, and a minute. What it can't show: the base image, its users, and another platform.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.checks.image import Dockerfile, Ignored, Stage, Step, environment

# These change the machine's own users.
_SKIPPED = {"groupadd", "useradd"}
_OWN = ("/src", "/opt", "/wheels")
_MOUNTED = re.compile(r"--mount=type=bind,from=([\w-]+),source=(/\w+),target=(/\w+)")


def replay(source: Path, target: Path) -> Path:
    """Replays all stages and gives the last one's tree. Raises CalledProcessError where a step fails."""
    ignored = Ignored((source / ".dockerignore").read_text())
    dockerfile = Dockerfile.read(source)
    for stage in dockerfile.stages:
        (target / stage.name).mkdir(parents=True)
        _replay(stage, source, target, ignored)
    return target / dockerfile.image.name


def _replay(stage: Stage, source: Path, target: Path, ignored: Ignored) -> None:
    root, here = target / stage.name, target / stage.name
    variables = {name: value for name, value in environment(stage).items() if name.startswith(("PIP_", "PYTHON"))}
    for step in stage.steps:
        match step.instruction:
            case "WORKDIR":
                here = root / step.arguments.lstrip("/")
                here.mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(step, source, target, here, ignored)
            case "RUN":
                _run(step, target, root, here, variables)


def _copy(step: Step, source: Path, target: Path, here: Path, ignored: Ignored) -> None:
    *paths, place = shlex.split(step.arguments)
    stage = next((flag.partition("=")[2] for flag in step.flags if flag.startswith("--from=")), None)
    for path in paths:
        if stage is not None:
            shutil.copytree(target / stage / path.lstrip("/"), here / place.lstrip("/"), symlinks=True)
            continue
        for file in [source / path] if (source / path).is_file() else sorted((source / path).rglob("*")):
            name = str(file.relative_to(source))
            if file.is_dir() or ignored.hides(name):
                continue
            copied = here / place / (Path(name).relative_to(path) if name != path else file.name)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copied)


def _run(step: Step, target: Path, root: Path, here: Path, variables: dict[str, str]) -> None:
    command = shlex.split(step.arguments)
    if command[0] in _SKIPPED:
        print(f"left out: {step.arguments}")
        return
    mounted = {
        found[3]: target / found[1] / found[2].lstrip("/") for flag in step.flags if (found := _MOUNTED.match(flag))
    }
    command = [_inside(part, root, mounted) for part in command]
    if command[0] == "python":
        command[0] = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
    print("+", shlex.join(command), flush=True)
    subprocess.run(command, cwd=here, env={**os.environ, **variables, "PYTHONPATH": ""}, check=True)


def _inside(part: str, root: Path, mounted: dict[str, Path]) -> str:
    if part in mounted:
        return str(mounted[part])
    return str(root / part.lstrip("/")) if part.startswith(_OWN) else part


def _weight(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def main(arguments: Sequence[str]) -> int:
    """Replays into the folder given, which must not exist."""
    tree = replay(Path(), Path(arguments[0]).absolute())
    parts = {"packages and bytecode": tree / "opt/minion/lib", "embedding graph": tree / "opt/minion/models"}
    for name, folder in parts.items():
        print(f"{name}: {_weight(folder):.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
