"""Puts the nouns' RPCs together into the one service of the contract."""

from typing import Self

from minion.session.v1.session_service_pb2_grpc import SessionServiceServicer
from minion_postgres import Database

from minion_session.contexts.service import Contexts
from minion_session.contexts.servicer import ContextRpcs
from minion_session.contexts.store import ContextStore
from minion_session.forks.service import Forks
from minion_session.forks.servicer import ForkRpcs
from minion_session.forks.store import ForkStore
from minion_session.messages.service import Messages
from minion_session.messages.servicer import MessageRpcs
from minion_session.messages.store import MessageStore
from minion_session.sessions.service import Sessions
from minion_session.sessions.servicer import SessionRpcs
from minion_session.sessions.store import SessionStore
from minion_session.summaries.service import Summaries
from minion_session.summaries.servicer import SummaryRpcs
from minion_session.summaries.store import SummaryStore
from minion_session.workspace.service import Workspace
from minion_session.workspace.servicer import WorkspaceRpcs
from minion_session.workspace.store import WorkspaceStore


class SessionServicer(
    SessionRpcs, MessageRpcs, ContextRpcs, SummaryRpcs, ForkRpcs, WorkspaceRpcs, SessionServiceServicer
):
    """Serves minion.session.v1.SessionService."""

    def __init__(
        self,
        sessions: Sessions,
        messages: Messages,
        workspace: Workspace,
        *,
        contexts: Contexts,
        summaries: Summaries,
        forks: Forks,
    ) -> None:
        self._sessions = sessions
        self._messages = messages
        self._workspace = workspace
        self._contexts = contexts
        self._summaries = summaries
        self._forks = forks

    @classmethod
    def on(cls, database: Database) -> Self:
        """Builds it on a database."""
        sessions = SessionStore(database)
        return cls(
            Sessions(sessions),
            Messages(MessageStore(database)),
            Workspace(WorkspaceStore(database)),
            contexts=Contexts(ContextStore(database)),
            summaries=Summaries(SummaryStore(database)),
            forks=Forks(ForkStore(database), sessions),
        )
