"""The settings of all services, seen together."""

from minion_activity.settings import ActivitySettings
from minion_cli.client_settings import ClientSettings
from minion_gateway.settings import GatewaySettings
from minion_memory.settings import MemorySettings
from minion_registry.settings import RegistrySettings
from minion_session.settings import SessionSettings
from minion_settings import Settings, unknown
from minion_settings.variables import variables

_ALL: tuple[type[Settings], ...] = (
    RegistrySettings,
    SessionSettings,
    MemorySettings,
    ActivitySettings,
    GatewaySettings,
)


def test_no_service_takes_anothers_settings_for_a_slip_of_the_pen() -> None:
    names = [variable for kind in _ALL for field in kind.model_fields for variable in variables(kind, field)]
    # What the command line reads.
    names += [f"MINION_{kind.service.upper()}_ADDRESS" for kind in _ALL]
    names += ["MINION_API_KEY", "MINION_SERVICE", "MINION_ADMIN_DATABASE_URL", "MINION_ADMIN_DATABASE_PASSWORD"]
    names += ["MINION_MONITOR_DATABASE_PASSWORD"]
    names += [variable for field in ClientSettings.model_fields for variable in variables(ClientSettings, field)]
    for kind in _ALL:
        assert list(unknown(kind, dict.fromkeys(names, ""))) == [], kind
