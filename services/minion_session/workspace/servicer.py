"""The RPCs on working memory."""

from typing import Any

import grpc
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire

from minion_session.workspace import convert
from minion_session.workspace.service import Workspace

Context = grpc.aio.ServicerContext[Any, Any]


class WorkspaceRpcs:
    """The part of minion.session.v1.SessionService that is about working memory."""

    _workspace: Workspace

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.GetWorkspaceResponse:
        """Returns entries by key."""
        wanted = convert.get_from_proto(request)
        entries = await self._workspace.get(wanted)
        size = wire.json_bytes(entry.value for entry in entries)
        return pb.GetWorkspaceResponse(entries=await wire.off_loop(convert.entries_to_proto, entries, size))

    async def SetWorkspaceEntries(
        self, request: pb.SetWorkspaceEntriesRequest, context: Context
    ) -> pb.SetWorkspaceEntriesResponse:
        """Sets entries, all or none."""
        changes, key = await wire.off_loop(convert.set_from_proto, request, request.ByteSize())
        entries = await self._workspace.set(changes, key)
        size = wire.json_bytes(entry.value for entry in entries)
        return pb.SetWorkspaceEntriesResponse(entries=await wire.off_loop(convert.entries_to_proto, entries, size))

    async def DeleteWorkspaceEntries(
        self, request: pb.DeleteWorkspaceEntriesRequest, context: Context
    ) -> pb.DeleteWorkspaceEntriesResponse:
        """Deletes entries."""
        wanted, key = convert.delete_from_proto(request)
        deleted = await self._workspace.delete(wanted, key)
        return pb.DeleteWorkspaceEntriesResponse(deleted_count=deleted)
