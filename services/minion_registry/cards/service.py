"""How an agent's card is come by."""

from typing import Any

from minion_auth import tenant

from minion_registry.agents.domain import AgentName
from minion_registry.bindings.store import BindingStore
from minion_registry.cards import domain


class Cards:
    """Makes the cards of a tenant's active agents."""

    def __init__(self, bindings: BindingStore, url: str) -> None:
        """`url` is where clients reach an agent, with `{agent_id}` for its id; empty when they can't."""
        self._bindings = bindings
        self._url = url

    async def get(self, named: AgentName) -> dict[str, Any]:
        """Returns an agent's card, as JSON. Raises NotFound (AGENT_NOT_FOUND) and FailedPrecondition
        (AGENT_STATUS_UNSUITABLE).
        """
        resolved = await self._bindings.resolve(tenant(), named)
        resolved.agent.check_active()
        return domain.card(resolved, self._url)
