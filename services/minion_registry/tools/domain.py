"""What a tool is, where it can be in its life, and what its digest is made of."""

import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from minion_errors import Aborted, FailedPrecondition, Violation

from minion_registry.canonical import canonical, same

# What the gateway can do by itself.
BUILTINS = ("clock", "calculator", "workspace", "remember", "recall", "read_blob")


class ToolTransport(enum.Enum):
    """How a tool is reached."""

    BUILTIN = "builtin"
    GRPC = "grpc"
    HTTP = "http"
    MCP = "mcp"
    AGENT = "agent"
    CLIENT = "client"


class ToolEffect(enum.Enum):
    """What calling a tool does to the world."""

    READ_ONLY = "read_only"
    IDEMPOTENT = "idempotent"
    SIDE_EFFECT = "side_effect"


class ToolApproval(enum.Enum):
    """Whether a person decides before a call."""

    NEVER = "never"
    ALWAYS = "always"


class HttpMethod(enum.Enum):
    """How an HTTP tool is asked."""

    GET = "get"
    POST = "post"
    PUT = "put"
    DELETE = "delete"


class ToolStatus(enum.Enum):
    """Where a tool is in its life: active → deprecated → retired, and active → retired."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"  # terminal

    def may_become(self, other: "ToolStatus") -> bool:
        """Tells whether the move is allowed; staying is no move."""
        return other in _TRANSITIONS[self]


_TRANSITIONS: Mapping[ToolStatus, frozenset[ToolStatus]] = {
    ToolStatus.ACTIVE: frozenset({ToolStatus.DEPRECATED, ToolStatus.RETIRED}),
    ToolStatus.DEPRECATED: frozenset({ToolStatus.RETIRED}),
    ToolStatus.RETIRED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class GrpcTarget:
    """Where a gRPC tool answers; an empty `tool_name` is the tool's own."""

    address: str
    tls: bool
    tool_name: str


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where an HTTP tool answers."""

    url: str
    method: HttpMethod


@dataclass(frozen=True, slots=True)
class McpTarget:
    """Where an MCP server answers; an empty `tool_name` is the tool's own."""

    url: str
    tool_name: str


@dataclass(frozen=True, slots=True)
class ToolExample:
    """A call as it should look; `output` counts where `shows_output` says so: null is an output as well."""

    description: str
    arguments: dict[str, Any]
    output: Any = None
    shows_output: bool = False


@dataclass(frozen=True, slots=True)
class CredentialReference:
    """A credential that a tool is called with, and where the gateway finds it; never what it is."""

    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class ToolContents:
    """What the owner of a tool says about it: all that a version keeps. `time_limit` None means the default of 30 s."""

    name: str
    description: str
    input_schema: dict[str, Any]
    transport: ToolTransport
    builtin: str
    effect: ToolEffect
    time_limit: timedelta | None
    cost_per_call_nanos: int
    labels: dict[str, str]
    output_schema: dict[str, Any] | None = None
    examples: tuple[ToolExample, ...] = ()
    documentation: str = ""
    grpc: GrpcTarget | None = None
    http: HttpTarget | None = None
    mcp: McpTarget | None = None
    target_agent_id: UUID | None = None
    approval: ToolApproval = ToolApproval.NEVER
    configuration_schema: dict[str, Any] | None = None
    default_configuration: dict[str, Any] = field(default_factory=dict)
    credentials: tuple[CredentialReference, ...] = ()

    def target_faults(self) -> Iterator[Violation]:
        """Tells where the target isn't that of the transport."""
        if self.transport is ToolTransport.BUILTIN:
            if self.builtin not in BUILTINS:
                yield Violation("tool.builtin", f"must be one of {', '.join(BUILTINS)}")
        elif self.builtin:
            yield Violation("tool.builtin", "is for BUILTIN alone")
        for transport, name in _TARGETS.items():
            if transport is self.transport and getattr(self, name) is None:
                yield Violation(f"tool.{name}", f"is required for {transport.name}")
            elif transport is not self.transport and getattr(self, name) is not None:
                yield Violation(f"tool.{name}", f"is for {transport.name} alone")

    def digest(self) -> str:
        """Gives the SHA-256, hexadecimal, of what an approval or a binding is given for.

        Over canonical JSON: see `canonical`.
        """
        return hashlib.sha256(canonical(self._pinned())).hexdigest()

    def pins_the_same_as(self, other: "ToolContents") -> bool:
        """Tells whether nothing that the digest covers differs."""
        return same(self._pinned(), other._pinned())

    def _pinned(self) -> dict[str, Any]:
        http = self.http and {"url": self.http.url, "method": self.http.method.value}
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "configuration_schema": self.configuration_schema,
            # What a binding leaves out is filled in from here: another default is another call.
            "default_configuration": self.default_configuration,
            "transport": self.transport.value,
            "builtin": self.builtin,
            "grpc": self.grpc and asdict(self.grpc),
            "http": http,
            "mcp": self.mcp and asdict(self.mcp),
            "target_agent_id": self.target_agent_id and str(self.target_agent_id),
            "effect": self.effect.value,
            "approval": self.approval.value,
            "credentials": {reference.name: reference.secret for reference in self.credentials},
        }


# The field that holds each transport's target.
_TARGETS: Final[Mapping[ToolTransport, str]] = {
    ToolTransport.GRPC: "grpc",
    ToolTransport.HTTP: "http",
    ToolTransport.MCP: "mcp",
    ToolTransport.AGENT: "target_agent_id",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as stored, in one of its versions.

    `edition` counts every change, `version` those of the contents. In an earlier version, `update_time` is when that
    version was made.
    """

    tool_id: UUID
    contents: ToolContents
    version: int
    digest: str
    create_time: datetime
    update_time: datetime
    status: ToolStatus = ToolStatus.ACTIVE
    status_note: str = ""
    edition: int = 1

    @property
    def etag(self) -> str:
        """What a caller sends back to say which edition was read."""
        return str(self.edition)

    def check_etag(self, etag: str) -> None:
        """Raises Aborted (ETAG_MISMATCH) when the caller read another edition; the empty etag asks for no check."""
        if etag and etag != self.etag:
            raise Aborted(
                "The tool changed since it was read.",
                reason="ETAG_MISMATCH",
                metadata={"tool_id": str(self.tool_id), "etag": self.etag},
            )

    def check_move(self, to: ToolStatus) -> None:
        """Raises FailedPrecondition (TOOL_TRANSITION_ILLEGAL), which names both states, unless the move is allowed."""
        if not self.status.may_become(to):
            raise FailedPrecondition(
                f"A tool can't go from {self.status.value} to {to.value}.",
                reason="TOOL_TRANSITION_ILLEGAL",
                metadata={"tool_id": str(self.tool_id), "from": self.status.name, "to": to.name},
            )

    def check_open(self) -> None:
        """Raises FailedPrecondition (TOOL_STATUS_UNSUITABLE) when the tool takes no changes any more."""
        if self.status is ToolStatus.RETIRED:
            raise self._unsuitable("A retired tool takes no changes.")

    def check_bindable(self, *, bound: bool) -> None:
        """Raises FailedPrecondition (TOOL_STATUS_UNSUITABLE) when no agent is given it; one that has it may be."""
        if self.status is ToolStatus.RETIRED:
            raise self._unsuitable("A retired tool can't be bound.")
        if self.status is ToolStatus.DEPRECATED and not bound:
            raise self._unsuitable("A deprecated tool is given to no other agent.")

    def check_digest(self, expected: str) -> None:
        """Raises Aborted (DIGEST_MISMATCH) when the caller looked at another; the empty one asks for no check."""
        if expected and expected != self.digest:
            raise Aborted(
                "The tool is no longer what the caller looked at.",
                reason="DIGEST_MISMATCH",
                metadata={"tool_id": str(self.tool_id), "digest": self.digest},
            )

    def _unsuitable(self, message: str) -> FailedPrecondition:
        return FailedPrecondition(
            message,
            reason="TOOL_STATUS_UNSUITABLE",
            metadata={"tool_id": str(self.tool_id), "status": self.status.name},
        )


@dataclass(frozen=True, slots=True)
class ToolName:
    """Names a tool by its id or by its name: exactly one is set."""

    tool_id: UUID | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Which tools a list holds; None and empty match all."""

    transport: ToolTransport | None = None
    status: ToolStatus | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChangedTool:
    """A tool as a change left it, and how many bindings the change blocked."""

    tool: Tool
    blocked_binding_count: int
