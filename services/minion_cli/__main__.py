"""The entry point: runs a command and turns whatever fails into one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence

import typer
from minion_errors import MinionError

from minion_cli.application import command


def main() -> None:
    """Runs the command line of this process and exits: 0 done, 1 refused or failed, 2 used or set wrongly."""
    # Programs are started beside a running gRPC, whose fork handlers crash such a child now and then (1.85.1).
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # Read when gRPC is imported, which commands do: a handshake that fails would be a line of its own beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; a failure is one line on standard error, never a trace."""
    try:
        code = command().main(args=list(arguments), prog_name="minion", standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message()
        # With no arguments at all a group shows its help, which is no line to be prefixed.
        _complain("USAGE", message) if "\n" not in message else print(message, file=sys.stderr)
        return int(getattr(error, "exit_code", 1))
    except typer.Abort:
        return 130
    except MinionError as error:
        _complain(error.reason, str(error))
        return 2 if error.reason == "SETTINGS_INVALID" else 1
    except BrokenPipeError:
        # Whoever read the output has enough; a second failure at exit would only repeat it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the one top-level handler
        if os.environ.get("MINION_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        _complain("INTERNAL", f"{type(error).__name__}: {error}")
        return 1
    return code if isinstance(code, int) else 0


def _complain(reason: str, message: str) -> None:
    print(f"error: {reason}: {' '.join(message.split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
