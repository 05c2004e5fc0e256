from uuid import uuid4

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve


async def test_a_service_is_served_and_called_for_a_tenant(postgres: ClonedDatabase) -> None:
    async with serve("session", postgres) as served:
        async with served.acting(uuid4()) as channel:
            listed = await SessionServiceStub(channel).ListSessions(pb.ListSessionsRequest())
            assert not listed.sessions
        async with (
            served.channel(None) as channel,
            refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
        ):
            await SessionServiceStub(channel).ListSessions(pb.ListSessionsRequest())
        assert {span.name for span in served.spans()} >= {"/minion.session.v1.SessionService/ListSessions"}
