"""`minion settings`: every setting with its default, as `.env.example` has them."""

import sys

from minion_cli.application import single

app = single("Print every setting with its default, as a file for the environment.")


@app.command()
def settings() -> None:
    """Prints every setting with its default, as a file for the environment."""
    # Imported here: the settings classes bring pydantic with them, and the help needs none of it.
    from minion_activity.settings import ActivitySettings  # noqa: PLC0415
    from minion_gateway.settings import GatewaySettings  # noqa: PLC0415
    from minion_memory.settings import MemorySettings  # noqa: PLC0415
    from minion_registry.settings import RegistrySettings  # noqa: PLC0415
    from minion_session.settings import SessionSettings  # noqa: PLC0415
    from minion_settings import Settings, env_example  # noqa: PLC0415

    classes: list[type[Settings]] = [
        RegistrySettings,
        SessionSettings,
        MemorySettings,
        ActivitySettings,
        GatewaySettings,
    ]
    sys.stdout.write(env_example(classes))
