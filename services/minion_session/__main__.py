"""Runs the session service: `python -m minion_session`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from minion.session.v1 import blob_service_pb2, session_service_pb2
from minion.session.v1.blob_service_pb2_grpc import add_BlobServiceServicer_to_server
from minion.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from minion_grpc import Server, run
from minion_grpc.verification import authenticating
from minion_postgres import Database
from minion_telemetry import Telemetry

from minion_session.blobs.service import Blobs
from minion_session.blobs.servicer import BlobServicer
from minion_session.blobs.store import BlobStore
from minion_session.blobs.worker import UploadsLeft
from minion_session.servicer import SessionServicer
from minion_session.sessions.store import SessionStore
from minion_session.sessions.worker import ActiveSessions, purge_requests
from minion_session.settings import SessionSettings

# A blob takes as long as its caller's line needs.
_DEADLINES = {"/minion.session.v1.BlobService/PutBlob": 600.0}


@asynccontextmanager
async def compose(settings: SessionSettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    async with (
        authenticating(settings, telemetry) as authenticator,
        await Database.connect(settings.app_dsn, schema="session", settings=settings, telemetry=telemetry) as database,
    ):
        sessions, blobs = SessionStore(database), BlobStore(database)
        server = Server("session", settings, telemetry, authenticator, deadlines=_DEADLINES)
        server.add(
            add_SessionServiceServicer_to_server,
            SessionServicer.on(database),
            session_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
        )
        server.add(
            add_BlobServiceServicer_to_server,
            BlobServicer(Blobs(blobs, limit_bytes=settings.blob_limit_bytes)),
            blob_service_pb2.DESCRIPTOR.services_by_name["BlobService"],
        )
        active = ActiveSessions(sessions, telemetry.registry, seconds=settings.active_count_seconds)
        server.background(active.run, name="active_sessions")
        server.background(partial(purge_requests, database), name="purge_requests")
        uploads = UploadsLeft(blobs, kept_seconds=settings.upload_kept_seconds)
        server.background(uploads.run, name="uploads_left")
        yield server


def main() -> None:
    """Runs the service until it is told to stop."""
    run(SessionSettings, compose)


if __name__ == "__main__":
    main()
