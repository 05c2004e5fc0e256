"""Runs the session service: `python -m minion_session`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources

from minion.session.v1 import blob_service_pb2, session_service_pb2
from minion.session.v1.blob_service_pb2_grpc import add_BlobServiceServicer_to_server
from minion.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from minion_grpc import Server, run
from minion_grpc.verification import authenticating
from minion_postgres import ChangeFeed, Database, Migrations
from minion_telemetry import Telemetry

from minion_session.blobs.service import Blobs
from minion_session.blobs.servicer import BlobServicer
from minion_session.blobs.store import BlobStore
from minion_session.blobs.worker import UploadsLeft
from minion_session.changes.service import Activity, Changes
from minion_session.changes.store import ActivityStore
from minion_session.changes.worker import purge_changes, tell_activity
from minion_session.contexts.service import Contexts
from minion_session.contexts.store import ContextStore
from minion_session.erasure.service import Erasure
from minion_session.erasure.store import ErasureStore
from minion_session.expiry.service import Expiry
from minion_session.expiry.store import ExpiryStore
from minion_session.expiry.worker import clean_for_ever
from minion_session.forks.service import Forks
from minion_session.forks.store import ForkStore
from minion_session.messages.service import Messages
from minion_session.messages.store import MessageStore
from minion_session.messages.watching import MessageWatch
from minion_session.servicer import SessionServicer
from minion_session.sessions.service import Sessions
from minion_session.sessions.store import SessionStore
from minion_session.sessions.worker import ActiveSessions, purge_requests
from minion_session.settings import SessionSettings
from minion_session.summaries.service import Summaries
from minion_session.summaries.store import SummaryStore
from minion_session.workspace.service import Workspace
from minion_session.workspace.store import WorkspaceStore

# A blob takes as long as its caller's line needs.
_DEADLINES = {"/minion.session.v1.BlobService/PutBlob": 600.0}


@asynccontextmanager
async def compose(settings: SessionSettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    async with (
        authenticating(settings, telemetry) as authenticator,
        await Database.connect(
            settings.app_dsn,
            schema="session",
            settings=settings,
            telemetry=telemetry,
            migrations=Migrations("session", resources.files("minion_session") / "migrations"),
        ) as database,
    ):
        sessions, messages, blobs = SessionStore(database), MessageStore(database), BlobStore(database)
        feed = ChangeFeed(database, schema="session", interval=settings.feed_poll_seconds, kept=settings.changes_kept)
        expiry = Expiry(ExpiryStore(database), kept=settings.expired_kept)
        activity = Activity(ActivityStore(database), pause=settings.activity_pause, overlap=settings.activity_overlap)
        servicer = SessionServicer(
            sessions=Sessions(sessions),
            messages=Messages(messages),
            message_watch=MessageWatch(
                messages, poll_seconds=settings.feed_poll_seconds, sync_seconds=settings.watch_sync_seconds
            ),
            contexts=Contexts(ContextStore(database)),
            summaries=Summaries(SummaryStore(database)),
            forks=Forks(ForkStore(database), sessions),
            workspace=Workspace(WorkspaceStore(database)),
            changes=Changes(feed, settings.watch_sync_seconds),
            expiry=expiry,
            erasure=Erasure(ErasureStore(database)),
        )
        server = Server("session", settings, telemetry, authenticator, deadlines=_DEADLINES)
        server.add(
            add_SessionServiceServicer_to_server,
            servicer,
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
        server.background(partial(purge_changes, feed), name="purge_changes")
        # Four looks in the time of a round: each finds it due or not, on whichever replica.
        look = min(settings.activity_seconds / 4, 5.0)
        server.background(partial(tell_activity, activity, look), name="tell_activity")
        server.background(partial(clean_for_ever, expiry, settings.expiry_seconds), name="clean_expired")
        uploads = UploadsLeft(blobs, kept_seconds=settings.upload_kept_seconds)
        server.background(uploads.run, name="uploads_left")
        yield server


def main() -> None:
    """Runs the service until it is told to stop."""
    run(SessionSettings, compose)


if __name__ == "__main__":
    main()
