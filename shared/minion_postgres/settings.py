"""Where a service's database is and how many connections it may hold."""

from collections.abc import Iterator

from minion_settings import Fault, Settings, relation
from pydantic import Field, SecretStr, field_validator

from minion_postgres import dsn
from minion_postgres.roles import roles


class DatabaseSettings(Settings):
    """Database."""

    database_url: SecretStr = Field(
        description="The database, as postgresql://host:5432/minion. With no user in it, the service's own role is "
        "filled in (minion_<service>_app). `minion dev` sets it to its embedded Postgres.",
    )
    database_password: SecretStr | None = Field(
        default=None, description="The password of the service's role, where the URL holds none."
    )
    owner_database_url: SecretStr | None = Field(
        default=None,
        description="The database for migrations and maintenance, a direct connection with no transaction pooler in "
        "between. Unset: the database's URL with the role minion_<service>_owner.",
    )
    owner_database_password: SecretStr | None = Field(
        default=None, description="The password of the owner's role, where the URL holds none."
    )
    pool_max_size: int = Field(default=25, ge=1, le=1000, description="Connections that the service holds at most.")
    pool_min_size: int = Field(default=5, ge=0, le=1000, description="Connections that it keeps open when idle.")
    pool_idle_seconds: float = Field(
        default=300.0,
        ge=1,
        le=86_400,
        description="Seconds after which an idle connection above the minimum is closed.",
    )
    pool_acquire_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3_600,
        description="Seconds that a call waits for a connection before it fails as UNAVAILABLE.",
    )
    statement_seconds: float = Field(
        default=10.0,
        gt=0,
        le=86_400,
        description="Seconds that one statement may run before it fails as DEADLINE_EXCEEDED.",
    )
    transaction_idle_seconds: float = Field(
        default=1.0,
        ge=0.1,
        le=60,
        description="Seconds that a transaction may wait for this service before the server ends it, because of the "
        "locks that it holds. More is for machines that stop a process for longer, as tight CPU limits do.",
    )
    feed_poll_seconds: float = Field(
        default=0.25, ge=0.01, le=60, description="Seconds between two looks of a watch at its change feed."
    )

    @field_validator("database_url", "owner_database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            dsn.parse(value.get_secret_value())
        return value

    @relation
    def _pool_has_room(self) -> Iterator[Fault]:
        """Yields a minimum above the maximum; where only the maximum is set, the minimum goes with it."""
        if "pool_min_size" in self.model_fields_set and self.pool_min_size > self.pool_max_size:
            yield Fault(
                self.variable("pool_min_size"),
                f"is {self.pool_min_size}, and {self.variable('pool_max_size')} is {self.pool_max_size}",
            )

    @property
    def app_dsn(self) -> str:
        """The connection string that the service runs with; holds the password."""
        return dsn.with_credentials(
            self.database_url.get_secret_value(), roles(self.service).app, _secret(self.database_password)
        )

    @property
    def owner_dsn(self) -> str:
        """The connection string for migrations and maintenance; holds the password."""
        password = _secret(self.owner_database_password)
        if self.owner_database_url is not None:
            return dsn.with_credentials(self.owner_database_url.get_secret_value(), roles(self.service).owner, password)
        url = self.database_url.get_secret_value()
        if dsn.parse(url).user is None:
            # A password with no user is that of whichever role is filled in.
            return dsn.with_credentials(url, roles(self.service).owner, password)
        return dsn.as_other_user(url, roles(self.service).owner, password)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None
