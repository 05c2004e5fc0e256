"""The tool step: a call the model asked for, made for the turn."""

import asyncio
from collections.abc import Sequence

from minion_telemetry import Telemetry, attributes
from opentelemetry.trace import Status, StatusCode

from minion_gateway.runs import audits
from minion_gateway.runs.changes import Charge
from minion_gateway.runs.domain import Step, StepState, TokenUsage, ToolResult
from minion_gateway.runs.happenings import ToolFinished
from minion_gateway.runs.keeping import Keeping
from minion_gateway.runs.timing import Part
from minion_gateway.runs.turn import Turn, now
from minion_gateway.tools.domain import Invocation, Outcome
from minion_gateway.tools.metrics import ToolMetrics
from minion_gateway.tools.service import Toolbox


class Calling:
    """Calls tools for turns."""

    def __init__(self, tools: Toolbox, keeping: Keeping, telemetry: Telemetry, metrics: ToolMetrics) -> None:
        self._tools = tools
        self._metrics = metrics
        self._keeping = keeping
        self._telemetry = telemetry

    async def call_all(self, turn: Turn, steps: Sequence[Step]) -> list[Outcome]:
        """Calls several tools at once; returns their outcomes in order."""
        if len(steps) == 1:
            return [await self.call(turn, steps[0])]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.call(turn, step)) for step in steps]
        return [task.result() for task in tasks]

    async def call(self, turn: Turn, step: Step) -> Outcome:
        """Calls the tool of a step. What the model got wrong is an outcome too."""
        assert step.intent is not None
        turn.called_at[step.sequence] = now()
        tool = turn.agent.tool(step.intent.name)
        if tool is None or tool not in turn.behaviour.tools(turn.agent):
            return Outcome(f"There is no tool {step.intent.name!r}.", is_error=True, nanoseconds=0)
        if step.intent.arguments is None:
            return Outcome("The arguments are not a JSON object, or too large.", is_error=True, nanoseconds=0)
        invocation = Invocation(
            arguments=step.intent.arguments,
            key=step.key(turn.run.run_id),
            session_id=turn.run.session_id,
            agent_id=turn.run.agent_id,
            user_id=turn.run.user_id,
            user_text=turn.run.text,
            message_sequence=turn.begun.message_sequence if turn.begun else 0,
            configuration=tool.configuration,
        )
        content = self._telemetry.content
        with self._telemetry.span(
            f"{attributes.OPERATION_EXECUTE_TOOL} {tool.name}",
            {
                attributes.GEN_AI_OPERATION_NAME: attributes.OPERATION_EXECUTE_TOOL,
                attributes.GEN_AI_TOOL_NAME: tool.name,
                attributes.GEN_AI_TOOL_CALL_ID: step.intent.call_id,
                attributes.GEN_AI_TOOL_TYPE: "function",
                attributes.MINION_RUN_STEP: step.sequence,
            },
        ) as span:
            content.write_json(span, attributes.GEN_AI_TOOL_CALL_ARGUMENTS, lambda: invocation.arguments)
            with turn.time.waiting_for(Part.TOOLS):
                outcome = await self._tools.call(tool, invocation)
            content.write_json(span, attributes.GEN_AI_TOOL_CALL_RESULT, lambda: outcome.output)
            if outcome.is_error:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute(attributes.ERROR_TYPE, "uncertain" if outcome.uncertain else "tool")
            return await self._keeping.keep(turn, step, outcome)

    def settle(self, turn: Turn, step: Step, outcome: Outcome) -> None:
        """Stages a tool's result with its charge, its event and its audit row. A failed call costs nothing."""
        assert step.intent is not None
        tool = turn.agent.tool(step.intent.name)
        cost = tool.cost_per_call_nanos if tool is not None and not outcome.is_error else 0
        turn.charge(Charge(step.sequence, "tool", step.intent.name, TokenUsage(), cost))
        self._metrics.charged(cost)
        intent = step.intent
        turn.tell(
            ToolFinished(
                step.sequence,
                intent.call_id,
                intent.name,
                outcome.output,
                outcome.is_error,
                outcome.nanoseconds,
                outcome.blob_id,
            )
        )
        turn.audit(audits.tool_called(turn, step, outcome, cost))
        state = StepState.FAILED if outcome.is_error else StepState.DONE
        turn.end(step, state, ToolResult(outcome.output, outcome.is_error, outcome.nanoseconds, outcome.blob_id))
