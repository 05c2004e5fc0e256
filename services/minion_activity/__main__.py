"""Runs the activity service: `python -m minion_activity`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

from minion.activity.v1 import activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import add_ActivityServiceServicer_to_server
from minion_grpc import Server, run
from minion_grpc.verification import authenticating
from minion_postgres import Database, Migrations
from minion_telemetry import Telemetry

from minion_activity.activities.service import Activities
from minion_activity.activities.servicer import ActivityServicer
from minion_activity.activities.store import ActivityStore, PartitionStore
from minion_activity.activities.worker import Partitions, warn_of_missing_owner
from minion_activity.settings import ActivitySettings

# Rows that wait in the default partition move when their month's is made.
_MAINTENANCE_SECONDS = 600.0


@asynccontextmanager
async def compose(settings: ActivitySettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    async with (
        authenticating(settings, telemetry) as authenticator,
        await Database.connect(
            settings.app_dsn,
            schema="activity",
            settings=settings,
            telemetry=telemetry,
            migrations=Migrations("activity", resources.files("minion_activity") / "migrations"),
        ) as database,
    ):
        server = Server("activity", settings, telemetry, authenticator)
        server.add(
            add_ActivityServiceServicer_to_server,
            ActivityServicer(Activities(ActivityStore(database), telemetry.registry)),
            activity_service_pb2.DESCRIPTOR.services_by_name["ActivityService"],
        )
        if settings.owner_database_url is None:
            server.background(warn_of_missing_owner, name="partitions")
        else:
            partitions = Partitions(
                lambda: _as_owner(settings, telemetry),
                months_ahead=settings.partition_months_ahead,
                seconds=settings.partition_check_seconds,
            )
            server.background(partitions.run, name="partitions")
        yield server


@asynccontextmanager
async def _as_owner(settings: ActivitySettings, telemetry: Telemetry) -> AsyncIterator[PartitionStore]:
    maintenance = settings.model_copy(
        update={"pool_min_size": 0, "pool_max_size": 1, "statement_seconds": _MAINTENANCE_SECONDS}
    )
    async with await Database.connect(
        settings.owner_dsn, schema="activity", settings=maintenance, telemetry=telemetry, measured=False
    ) as database:
        yield PartitionStore(database)


def main() -> None:
    """Runs the service until it is told to stop."""
    run(ActivitySettings, compose)


if __name__ == "__main__":
    main()
