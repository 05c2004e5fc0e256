"""What becomes of results that are too large for a message: a blob of the session, and an excerpt that names it.

The blob is stored before the result is committed. Who dies in between leaves at most a blob that nobody names: it goes
with its session, and the same bytes again are the same blob.
"""

import asyncio
from dataclasses import replace

import structlog
from minion_errors import MinionError

from minion_gateway.runs.blobs import BlobPeer
from minion_gateway.runs.domain import Step
from minion_gateway.runs.failures import passes
from minion_gateway.runs.points import point
from minion_gateway.runs.turn import Turn
from minion_gateway.tools.domain import Outcome, Whole

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
# What the run needs of its time to write down a result that was cut.
_SPARED = 0.5
_log = structlog.get_logger()


class Keeping:
    """Keeps whole results for turns."""

    def __init__(self, blobs: BlobPeer) -> None:
        self._blobs = blobs

    async def keep(self, turn: Turn, step: Step, outcome: Outcome) -> Outcome:
        """Stores what of an outcome is too large, and says in its output where.

        A session that is away is waited for, as long as the run has time. What it refuses for good, or until then, is
        cut, and the output says so: the tool has acted, and what of its result can be kept is.
        """
        whole = outcome.whole
        if whole is None:
            return outcome
        assert step.intent is not None
        point("blob.before")
        clock = asyncio.get_running_loop().time
        until = turn.deadline - _SPARED
        pause = _FIRST_PAUSE
        while True:
            try:
                blob_id = await self._blobs.put(
                    turn.run.session_id,
                    whole.data,
                    media_type=whole.media_type,
                    name=f"{step.intent.name} {step.intent.call_id}"[:200],
                    sha256=whole.sha256,
                    seconds=max(_FIRST_PAUSE, until - clock()),
                )
                break
            except MinionError as fault:
                if not passes(fault) or clock() + pause > until:
                    _log.error("a large result is cut", reason=fault.reason, error=fault.message, size=len(whole.data))
                    return replace(outcome, output=_cut(outcome, whole, fault.reason), whole=None)
                _log.info("a blob is stored again", reason=fault.reason, error=fault.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        point("blob.stored")
        return replace(outcome, output=_excerpt(outcome, whole, blob_id), whole=None, blob_id=blob_id)


def _excerpt(outcome: Outcome, whole: Whole, blob_id: str) -> str:
    # What it is comes first: whoever cuts the excerpt further leaves that.
    return f"(excerpt of {len(whole.data)} bytes of {whole.media_type}; the whole is blob {blob_id})\n{outcome.output}"


def _cut(outcome: Outcome, whole: Whole, reason: str) -> str:
    return f"(cut: {len(whole.data)} bytes of {whole.media_type} could not be kept: {reason})\n{outcome.output}"
