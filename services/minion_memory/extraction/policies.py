"""What agents want remembered, asked of the registry and kept for a moment."""

import asyncio
from collections import OrderedDict
from uuid import UUID

from minion_memory.extraction.domain import Policy
from minion_memory.extraction.peer import Registry

_KEPT_SECONDS = 30.0
_REMEMBERED = 10_000


class Policies:
    """Policies by agent. One that was changed counts within half a minute."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: OrderedDict[tuple[UUID, UUID], tuple[float, Policy]] = OrderedDict()

    async def of(self, tenant_id: UUID, agent_id: UUID) -> Policy:
        """Gives the policy of an agent of the caller's tenant, which is named here to keep tenants apart.

        Raises Unavailable when the registry can't be asked and it isn't known.
        """
        now = asyncio.get_running_loop().time()
        known = self._known.get((tenant_id, agent_id))
        if known is not None and now < known[0] + _KEPT_SECONDS:
            return known[1]
        policy = await self._registry.policy(agent_id)
        self._known[tenant_id, agent_id] = (now, policy)
        self._known.move_to_end((tenant_id, agent_id))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return policy
