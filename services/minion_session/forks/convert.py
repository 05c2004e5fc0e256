"""Between the contract's forks and the domain's."""

from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations
from minion_postgres import Key

from minion_session import requests
from minion_session.forks.domain import NewFork
from minion_session.sessions.convert import ttl_from_proto


def fork_from_proto(request: pb.ForkSessionRequest) -> tuple[NewFork, Key | None]:
    """Reads what to fork, and where."""
    violations = Violations()
    if request.at_sequence < 0:
        violations.add("at_sequence", f"must not be negative, is {request.at_sequence}")
    new = NewFork(
        session_id=violations.identifier("session_id", request.session_id),
        at_sequence=request.at_sequence or None,
        fork_session_id=violations.optional_identifier("fork_session_id", request.fork_session_id),
        display_name=violations.length("display_name", request.display_name, maximum=200) or None,
        ttl=ttl_from_proto(request, violations),
    )
    key = requests.key(violations, request)
    violations.raise_if_any()
    return new, key
