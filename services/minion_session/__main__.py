"""Runs the session service: `python -m minion_session`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from minion.session.v1 import session_service_pb2
from minion.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from minion_grpc import Server, run
from minion_grpc.verification import authenticating
from minion_postgres import Database
from minion_telemetry import Telemetry

from minion_session.messages.service import Messages
from minion_session.messages.store import MessageStore
from minion_session.servicer import SessionServicer
from minion_session.sessions.service import Sessions
from minion_session.sessions.store import SessionStore
from minion_session.sessions.worker import ActiveSessions, purge_requests
from minion_session.settings import SessionSettings
from minion_session.workspace.service import Workspace
from minion_session.workspace.store import WorkspaceStore


@asynccontextmanager
async def compose(settings: SessionSettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    async with (
        authenticating(settings, telemetry) as authenticator,
        await Database.connect(settings.app_dsn, schema="session", settings=settings, telemetry=telemetry) as database,
    ):
        sessions = SessionStore(database)
        servicer = SessionServicer(
            Sessions(sessions), Messages(MessageStore(database)), Workspace(WorkspaceStore(database))
        )
        server = Server("session", settings, telemetry, authenticator)
        server.add(
            add_SessionServiceServicer_to_server,
            servicer,
            session_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
        )
        active = ActiveSessions(sessions, telemetry.registry, seconds=settings.active_count_seconds)
        server.background(active.run, name="active_sessions")
        server.background(partial(purge_requests, database), name="purge_requests")
        yield server


def main() -> None:
    """Runs the service until it is told to stop."""
    run(SessionSettings, compose)


if __name__ == "__main__":
    main()
