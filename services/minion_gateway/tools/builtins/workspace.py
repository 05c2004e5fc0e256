"""`workspace`: the session's working memory. IDEMPOTENT: a set acts once for its step."""

from typing import Any

from minion_gateway.runs.peer import SessionPeer
from minion_gateway.tools.domain import Invocation, ToolFailedError

_MAXIMUM_KEY = 200


class Workspace:
    """Sets, gets and lists entries. `operation` is set, get or list; without one it follows from what else is given."""

    def __init__(self, sessions: SessionPeer) -> None:
        self._sessions = sessions

    async def __call__(self, invocation: Invocation) -> Any:
        """Does one operation."""
        arguments = invocation.arguments
        key, has_value = arguments.get("key"), "value" in arguments
        fallback = "set" if key and has_value else "get" if key else "list"
        operation = arguments.get("operation") or fallback
        if operation in {"get", "set"} and not (isinstance(key, str) and 0 < len(key) <= _MAXIMUM_KEY):
            raise ToolFailedError(f"Give a `key` of 1 to {_MAXIMUM_KEY} characters.")
        match operation:
            case "set":
                if not has_value:
                    raise ToolFailedError("Give a `value` to set.")
                version = await self._sessions.set_workspace(
                    invocation.session_id, str(key), arguments["value"], invocation.key
                )
                return {"key": key, "version": version}
            case "get":
                entries = await self._sessions.workspace(invocation.session_id, [str(key)])
                if key not in entries:
                    raise ToolFailedError(f"There is no entry {key!r}.")
                return {"key": key, "value": entries[str(key)]}
            case "list":
                return {"entries": await self._sessions.workspace(invocation.session_id, [])}
            case _:
                raise ToolFailedError("The operation must be set, get or list.")
