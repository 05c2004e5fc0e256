"""`minion settings`: every setting with its default, as `.env.example` has them."""

import sys

from minion_activity.settings import ActivitySettings
from minion_gateway.settings import GatewaySettings
from minion_memory.settings import MemorySettings
from minion_registry.settings import RegistrySettings
from minion_session.settings import SessionSettings
from minion_settings import Settings, env_example

from minion_cli.application import single
from minion_cli.client_settings import ClientSettings

app = single("Print every setting with its default, as a file for the environment.")


@app.command()
def settings() -> None:
    """Print every setting with its default, as a file for the environment."""
    classes: list[type[Settings]] = [
        RegistrySettings,
        SessionSettings,
        MemorySettings,
        ActivitySettings,
        GatewaySettings,
        ClientSettings,
    ]
    sys.stdout.write(env_example(classes))
