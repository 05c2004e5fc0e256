"""What the Dockerfile says, as far as it can be known with no engine."""

import tomllib

import pytest
from minion_cli.application import command
from minion_cli.development.ports import DOCUMENTED

from deploy.checks.image import Dockerfile, Ignored, faults
from tests.architecture.contract import ROOT
from tests.deploy.copies import Copy, copied

__all__ = ["copied"]


@pytest.fixture
def image() -> Dockerfile:
    return Dockerfile.read(ROOT)


def arguments(image: Dockerfile, instruction: str) -> list[str]:
    """What an instruction of the last stage says, each time that it stands there."""
    return [step.arguments for step in image.image.steps if step.instruction == instruction]


def test_it_copies_what_is_there_and_takes_no_shell() -> None:
    assert list(faults(ROOT)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("COPY services services", "COPY service services", "copies service, which there is not"),
        ("COPY shared shared", "COPY docs shared", "copies docs, which .dockerignore leaves out"),
        ("--from=dependencies", "--from=dependency", "there is no stage dependency above"),
        ("from=wheel,", "from=wheels,", "there is no stage wheels above"),
        ("USER 10001:10001", "USER minion", "USER must be a number"),
        ('CMD ["minion", "health"]', "CMD minion health", "HEALTHCHECK must not need a shell"),
        ('ENTRYPOINT ["minion"]', "ENTRYPOINT minion", "ENTRYPOINT must be in exec form"),
        ("RUN groupadd", "RUN apt-get update && groupadd", "RUN takes a shell's tricks"),
        ("python:3.13-slim-bookworm\n", "python:latest\n", "which is pinned by no version"),
        ("STOPSIGNAL SIGTERM\n", "", "STOPSIGNAL is missing"),
    ],
)
def test_each_fault_is_told(copied: Copy, old: str, new: str, fault: str) -> None:
    copied.replace("deploy/Dockerfile", old, new)
    assert any(fault in found for found in faults(copied.folder)), list(faults(copied.folder))


def test_what_the_context_leaves_out() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    for path in (".env", ".git", ".venv", ".minion/credentials.json", "tests", "services/minion_cli/__pycache__/x.pyc"):
        assert ignored.hides(path), path
    for path in ("services/minion_cli/serve.py", "shared/minion/registry/v1", "pyproject.toml"):
        assert not ignored.hides(path), path


def test_the_images_own_choices(image: Dockerfile) -> None:
    environment = image.environment
    assert environment["MINION_SERVICE"] in DOCUMENTED
    assert environment["GRPC_VERBOSITY"] == "ERROR"
    assert environment["GRPC_ENABLE_FORK_SUPPORT"] == "false"
    assert {"serve", "health"} <= set(command().commands)
    assert arguments(image, "ENTRYPOINT") == ['["minion"]']
    assert arguments(image, "CMD") == ['["serve"]']
    assert arguments(image, "HEALTHCHECK")[0].endswith('CMD ["minion", "health"]')
    ports = {str(port) for pair in DOCUMENTED.values() for port in (pair.rpc, pair.operations)}
    assert set(arguments(image, "EXPOSE")[0].split()) == ports


def test_the_graph_is_written_where_the_image_says(image: Dockerfile) -> None:
    dependencies = next(stage for stage in image.stages if stage.name == "dependencies")
    (written,) = [
        step.arguments for step in dependencies.steps if "graph.py" in step.arguments and "-P" in step.arguments
    ]
    assert written.split()[-1] == image.environment["MINION_MODEL_CACHE"]


def test_the_image_has_the_version_of_the_project(image: Dockerfile) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in arguments(image, "ARG")
    assert f"minion-agents:${{MINION_VERSION:-{version}}}" in (ROOT / "docker-compose.yml").read_text()
