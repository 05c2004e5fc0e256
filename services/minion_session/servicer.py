"""Puts the nouns' RPCs together into the one service of the contract."""

from minion.session.v1.session_service_pb2_grpc import SessionServiceServicer

from minion_session.changes.service import Changes
from minion_session.changes.servicer import ChangeRpcs
from minion_session.erasure.service import Erasure
from minion_session.erasure.servicer import ErasureRpcs
from minion_session.expiry.service import Expiry
from minion_session.expiry.servicer import ExpiryRpcs
from minion_session.messages.service import Messages
from minion_session.messages.servicer import MessageRpcs
from minion_session.messages.watching import MessageWatch
from minion_session.sessions.service import Sessions
from minion_session.sessions.servicer import SessionRpcs
from minion_session.workspace.service import Workspace
from minion_session.workspace.servicer import WorkspaceRpcs


class SessionServicer(
    SessionRpcs, MessageRpcs, WorkspaceRpcs, ChangeRpcs, ExpiryRpcs, ErasureRpcs, SessionServiceServicer
):
    """Serves minion.session.v1.SessionService."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        messages: Messages,
        message_watch: MessageWatch,
        workspace: Workspace,
        changes: Changes,
        expiry: Expiry,
        erasure: Erasure,
    ) -> None:
        self._sessions = sessions
        self._messages = messages
        self._message_watch = message_watch
        self._workspace = workspace
        self._changes = changes
        self._expiry = expiry
        self._erasure = erasure
