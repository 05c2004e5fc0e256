"""The commands by name; each one's module is imported when it is called, so that `minion --help` costs little."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

# name → the module that holds its `app`, and the line that the help shows.
_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": ("minion_cli.demo.command", "Show a real agent over two sessions, from an empty directory."),
    "dev": ("minion_cli.development.command", "Run all five services and their Postgres on this machine."),
    "chat": ("minion_cli.chat", "Talk to an agent."),
    "agents": ("minion_cli.agents", "Create, list and move agents; see their tools."),
    "rollouts": ("minion_cli.rollouts", "Give new revisions of agents a share of the sessions first."),
    "sessions": ("minion_cli.sessions", "List, read, watch, fork and change sessions; erase a user's."),
    "runs": ("minion_cli.runs", "Start, list and watch runs."),
    "memories": ("minion_cli.memories", "Search, store, list and delete what agents remember."),
    "embeddings": ("minion_cli.embeddings", "Register embedding models; choose one, and move memories to it."),
    "activities": ("minion_cli.activities", "Read the audit and an agent's figures."),
    "tenants": ("minion_cli.tenants", "Create tenants (operators)."),
    "keys": ("minion_cli.keys", "Create and revoke API keys."),
    "doctor": ("minion_cli.doctor", "Check this machine and say what to do about what is wrong."),
    "settings": ("minion_cli.settings", "Print every setting with its default."),
    "migrate": ("minion_cli.migrate", "Move the services' database schemas up or down."),
}


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
def _root() -> None:
    """Takes no options of its own: each command has its own."""


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
