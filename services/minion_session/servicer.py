"""Puts the nouns' RPCs together into the one service of the contract."""

from minion.session.v1.session_service_pb2_grpc import SessionServiceServicer

from minion_session.messages.service import Messages
from minion_session.messages.servicer import MessageRpcs
from minion_session.sessions.service import Sessions
from minion_session.sessions.servicer import SessionRpcs
from minion_session.workspace.service import Workspace
from minion_session.workspace.servicer import WorkspaceRpcs


class SessionServicer(SessionRpcs, MessageRpcs, WorkspaceRpcs, SessionServiceServicer):
    """Serves minion.session.v1.SessionService."""

    def __init__(self, sessions: Sessions, messages: Messages, workspace: Workspace) -> None:
        self._sessions = sessions
        self._messages = messages
        self._workspace = workspace
