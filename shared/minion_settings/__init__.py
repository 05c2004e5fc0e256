"""Settings from the environment: read once, validated whole, frozen.

A service combines the mixins that live beside what they configure, and adds its own fields:

```python
class SessionSettings(ServerSettings, DatabaseSettings, AuthSettings, TelemetrySettings):
    \"\"\"The session service.\"\"\"

    service: ClassVar[str] = "session"
    port: int = Field(50052, ge=0, le=65535, description="The port of the gRPC server; 0 picks a free one.")
    session_days: int = Field(30, ge=1, description="Days after which an idle session expires.")


settings = SessionSettings.load()
```

`session_days` is read from `MINION_SESSION_SESSION_DAYS`, else from `MINION_SESSION_DAYS`. A field with a
`validation_alias` is read from that name as it is, because the world knows it so (`OPENAI_API_KEY`). An empty variable
counts as unset. Lists are separated by commas, mappings are JSON. The constructor reads no environment: tests and the
development stack pass values. What several fields must be together is a method marked with `relation`.
"""

from minion_settings.addresses import Address, HttpAddress
from minion_settings.example import env_example
from minion_settings.faults import Fault, SettingsError
from minion_settings.ports import free_ports
from minion_settings.relations import relation
from minion_settings.settings import Settings
from minion_settings.unknown import Unknown, unknown

__all__ = [
    "Address",
    "Fault",
    "HttpAddress",
    "Settings",
    "SettingsError",
    "Unknown",
    "env_example",
    "free_ports",
    "relation",
    "unknown",
]
