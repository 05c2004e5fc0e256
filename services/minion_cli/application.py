"""The commands by name; each one's module is imported when it is called, so that `minion --help` costs little."""

import importlib
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

# name → the module that holds its `app`, and the line that the help shows.
_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": ("minion_cli.demo.command", "Show a real agent over two sessions, from an empty directory."),
    "dev": ("minion_cli.development.command", "Run all five services and their Postgres on this machine."),
    "chat": ("minion_cli.chat", "Talk to an agent."),
    "agents": ("minion_cli.agents", "Create, find, move and apply agents; bind tools to them."),
    "tools": ("minion_cli.tools", "Register, change and retire tools; check arguments."),
    "rollouts": ("minion_cli.rollouts", "Give new revisions of agents a share of the sessions first."),
    "sessions": ("minion_cli.sessions", "List, read, watch, fork and change sessions; erase a user's."),
    "runs": ("minion_cli.runs", "Start, list and watch runs."),
    "memories": ("minion_cli.memories", "Search, store, list and delete what agents remember."),
    "embeddings": ("minion_cli.embeddings", "Register embedding models; choose one, and move memories to it."),
    "activities": ("minion_cli.activities", "Read the audit and an agent's figures."),
    "tenants": ("minion_cli.tenants", "Create, list, suspend and resume tenants (operators)."),
    "keys": ("minion_cli.keys", "Create, list, rotate and revoke API keys."),
    "doctor": ("minion_cli.doctor", "Check this machine and say what to do about what is wrong."),
    "settings": ("minion_cli.settings", "Print every setting with its default."),
    "privileges": ("minion_cli.privileges", "Print which database role may do what."),
    "migrate": ("minion_cli.migrate", "Move the services' database schemas up or down."),
    "secrets": ("minion_cli.secrets", "Make the secrets of a new deployment, random ones."),
    "serve": ("minion_cli.serve", "Run one service until it is told to stop."),
    "health": ("minion_cli.health", "Ask a service of this machine whether it serves."),
}


# The settings of TLS that this command line gives, by field of ClientSettings; they win over the environment.
tls_options: ContextVar[Mapping[str, object]] = ContextVar("tls_options", default={})  # noqa: B039 - never written to


class _Commands(TyperGroup):
    """A group whose commands are names and help until one of them is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, help_) in _COMMANDS.items():
            self.add_command(TyperCommand(name, help=help_, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if name is not None and name in _COMMANDS:
            found = typer.main.get_command(importlib.import_module(_COMMANDS[name][0]).app)
        return name, found, rest


_app = typer.Typer(
    cls=_Commands,
    help="The backend under your AI agents: five gRPC services on Postgres. Begin with `minion demo`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@_app.callback()
def _root(
    tls: Annotated[bool, typer.Option("--tls", help="Call the services over TLS.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the CAs of their certificates. Means --tls.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file of a client certificate, for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
) -> None:
    """Takes how the services are called; all else is a command's own."""
    given = {"client_ca": ca, "client_certificate": cert, "client_key": key}
    chosen: dict[str, object] = {name: path for name, path in given.items() if path is not None}
    # Set even when empty: one process may run several command lines.
    tls_options.set({**chosen, "client_tls": True} if tls or chosen else {})


def command() -> TyperGroup:
    """Builds the whole command line."""
    return typer.main.get_group(_app)


def group(help_: str) -> typer.Typer:
    """Makes the Typer of one noun, as plain as all the others."""
    made = typer.Typer(
        help=help_,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # A callback makes it a group even while it has a single command.
    made.callback()(_nothing)
    return made


def single(help_: str) -> typer.Typer:
    """Makes the Typer of a command that has no commands under it."""
    return typer.Typer(help=help_, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _nothing() -> None:
    return None
