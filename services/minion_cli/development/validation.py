"""Whether the settings of a stack are right, before anything of it is started."""

from collections.abc import Mapping

from minion_activity.settings import ActivitySettings
from minion_gateway.settings import GatewaySettings
from minion_grpc import ServerSettings
from minion_memory.settings import MemorySettings
from minion_postgres import SCHEMAS
from minion_registry.settings import RegistrySettings
from minion_session.settings import SessionSettings
from minion_settings import SettingsError

from minion_cli.databases import url_faults
from minion_cli.development import ports as ports_of
from minion_cli.development.directory import Credentials, Directory
from minion_cli.development.environment import environment
from minion_cli.development.ports import Ports
from minion_cli.loading import refused

_KINDS: tuple[type[ServerSettings], ...] = (
    RegistrySettings,
    SessionSettings,
    ActivitySettings,
    MemorySettings,
    GatewaySettings,
)
# Each service gets a URL of its own once the database runs; until then any will do in its place.
_DATABASE = {f"MINION_{service.upper()}_DATABASE_URL": "postgresql://localhost/minion" for service in SCHEMAS}


def check(
    environ: Mapping[str, str], *, directory: Directory, credentials: Credentials, ports: Mapping[str, Ports]
) -> None:
    """Raises FailedPrecondition that lists every fault of all five services' settings, each once."""
    faults = [
        *url_faults("MINION_DATABASE_URL", environ),
        *url_faults("MINION_ADMIN_DATABASE_URL", environ),
        *ports_of.faults(environ, ports),
    ]
    given = {name: value for name, value in environ.items() if not name.endswith("DATABASE_URL")}
    settings = environment(given, directory=directory, credentials=credentials, ports=ports, database=_DATABASE)
    for kind in _KINDS:
        try:
            kind.load(settings)
        except SettingsError as error:
            faults += error.faults
    if faults:
        raise refused(faults)
