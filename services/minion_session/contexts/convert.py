"""Between the contract's contexts and the domain's."""

from minion.session.v1 import session_service_pb2 as pb
from minion_errors import Violations

from minion_session.contexts.domain import BegunTurn, ContextQuery, Limits, SessionContext
from minion_session.messages import convert as messages
from minion_session.sessions import convert as sessions
from minion_session.summaries import convert as summaries


def get_from_proto(request: pb.GetContextRequest) -> ContextQuery:
    """Reads whose context is asked for, and how much of it."""
    violations = Violations()
    session_id = violations.identifier("session_id", request.session_id)
    budget, most = messages.limits_from_proto(request, violations)
    violations.raise_if_any()
    return ContextQuery(session_id, Limits(budget, most))


def context_to_proto(found: SessionContext) -> pb.GetContextResponse:
    """Writes what a model is to be shown."""
    context = found.context
    return pb.GetContextResponse(
        session=sessions.to_proto(found.session),
        summary=summaries.to_proto(context.summary) if context.summary is not None else None,
        messages=[messages.to_proto(message) for message in context.messages],
        token_count=context.token_count,
        truncated=context.truncated,
    )


def begun_to_proto(begun: BegunTurn) -> pb.BeginTurnResponse:
    """Writes what the model is to be shown."""
    context = begun.context
    return pb.BeginTurnResponse(
        session=sessions.to_proto(begun.session),
        message=messages.to_proto(begun.message),
        context=[messages.to_proto(message) for message in context.messages],
        context_token_count=context.token_count,
        truncated=context.truncated,
        summary=summaries.to_proto(context.summary) if context.summary is not None else None,
    )
