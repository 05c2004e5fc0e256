"""Who may call what: one row for each RPC of the contract, and what has no row is denied."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from minion_auth.identity import CallerKind


@dataclass(frozen=True, slots=True)
class Rule:
    """What calling a method means (`permission`), and which kinds of callers may."""

    permission: str
    callers: frozenset[CallerKind]


# Tenants for themselves, services that act for one, operators that name one.
_ANYBODY = frozenset(CallerKind)
_SERVICES = frozenset({CallerKind.SERVICE})
_OPERATORS = frozenset({CallerKind.OPERATOR})
_TENANTS_AND_OPERATORS = frozenset({CallerKind.TENANT, CallerKind.OPERATOR})

_TABLE: Mapping[str, tuple[tuple[str, str, frozenset[CallerKind]], ...]] = {
    "minion.registry.v1.AgentService": (
        ("CreateAgent", "agents.write", _ANYBODY),
        ("GetAgent", "agents.read", _ANYBODY),
        ("ListAgents", "agents.read", _ANYBODY),
        ("SearchAgents", "agents.read", _ANYBODY),
        ("GetAgentCard", "agents.read", _ANYBODY),
        ("UpdateAgent", "agents.write", _ANYBODY),
        ("RollbackAgent", "agents.write", _ANYBODY),
        ("DeleteAgent", "agents.write", _ANYBODY),
        ("ActivateAgent", "agents.write", _ANYBODY),
        ("DeactivateAgent", "agents.write", _ANYBODY),
        ("ArchiveAgent", "agents.write", _ANYBODY),
        ("ListAgentRevisions", "agents.read", _ANYBODY),
        ("BindTool", "agents.write", _ANYBODY),
        ("UnbindTool", "agents.write", _ANYBODY),
        ("ListAgentTools", "agents.read", _ANYBODY),
        ("ResolveAgent", "agents.read", _ANYBODY),
        ("WatchAgents", "agents.read", _ANYBODY),
    ),
    "minion.registry.v1.ToolService": (
        ("RegisterTool", "tools.write", _ANYBODY),
        ("GetTool", "tools.read", _ANYBODY),
        ("ListTools", "tools.read", _ANYBODY),
        ("UpdateTool", "tools.write", _ANYBODY),
        ("DeprecateTool", "tools.write", _ANYBODY),
        ("RetireTool", "tools.write", _ANYBODY),
        ("ListToolVersions", "tools.read", _ANYBODY),
        ("ValidateToolArguments", "tools.read", _ANYBODY),
    ),
    "minion.registry.v1.RolloutService": (
        ("StartRollout", "rollouts.write", _ANYBODY),
        ("GetRollout", "rollouts.read", _ANYBODY),
        ("ListRollouts", "rollouts.read", _ANYBODY),
        ("AdvanceRollout", "rollouts.write", _ANYBODY),
        ("PromoteRollout", "rollouts.write", _ANYBODY),
        ("AbortRollout", "rollouts.write", _ANYBODY),
    ),
    "minion.registry.v1.TenantService": (
        ("CreateTenant", "tenants.admin", _OPERATORS),
        ("GetTenant", "tenants.admin", _OPERATORS),
        ("ListTenants", "tenants.admin", _OPERATORS),
        ("SuspendTenant", "tenants.admin", _OPERATORS),
        ("ResumeTenant", "tenants.admin", _OPERATORS),
    ),
    "minion.registry.v1.ApiKeyService": (
        ("CreateApiKey", "keys.admin", _TENANTS_AND_OPERATORS),
        ("ListApiKeys", "keys.read", _TENANTS_AND_OPERATORS),
        ("RotateApiKey", "keys.admin", _TENANTS_AND_OPERATORS),
        ("RevokeApiKey", "keys.admin", _TENANTS_AND_OPERATORS),
        ("VerifyCredential", "keys.verify", _SERVICES),
    ),
    "minion.session.v1.SessionService": (
        ("CreateSession", "sessions.write", _ANYBODY),
        ("GetSession", "sessions.read", _ANYBODY),
        ("ListSessions", "sessions.read", _ANYBODY),
        ("UpdateSession", "sessions.write", _ANYBODY),
        ("ExtendSession", "sessions.write", _ANYBODY),
        ("CloseSession", "sessions.write", _ANYBODY),
        ("ArchiveSession", "sessions.write", _ANYBODY),
        ("DeleteSession", "sessions.write", _ANYBODY),
        ("ForkSession", "sessions.write", _ANYBODY),
        ("AppendMessages", "sessions.write", _ANYBODY),
        ("ListMessages", "sessions.read", _ANYBODY),
        ("WatchMessages", "sessions.read", _ANYBODY),
        ("WatchSessions", "sessions.read", _ANYBODY),
        ("GetContext", "sessions.read", _ANYBODY),
        ("SaveSummary", "sessions.write", _ANYBODY),
        ("ListSummaries", "sessions.read", _ANYBODY),
        ("BeginTurn", "sessions.write", _SERVICES),
        ("EndTurn", "sessions.write", _SERVICES),
        ("GetWorkspace", "sessions.read", _ANYBODY),
        ("SetWorkspaceEntries", "sessions.write", _ANYBODY),
        ("DeleteWorkspaceEntries", "sessions.write", _ANYBODY),
        ("CleanupExpiredSessions", "sessions.write", _ANYBODY),
        ("EraseSubject", "sessions.erase", _ANYBODY),
    ),
    "minion.session.v1.BlobService": (
        ("PutBlob", "sessions.write", _ANYBODY),
        ("GetBlob", "sessions.read", _ANYBODY),
    ),
    "minion.memory.v1.MemoryService": (
        ("StoreMemories", "memories.write", _ANYBODY),
        ("GetMemory", "memories.read", _ANYBODY),
        ("GetMemoryByKey", "memories.read", _ANYBODY),
        ("ListMemories", "memories.read", _ANYBODY),
        ("UpdateMemory", "memories.write", _ANYBODY),
        ("DeleteMemory", "memories.write", _ANYBODY),
        ("SearchMemories", "memories.read", _ANYBODY),
        ("ExtractMemories", "memories.write", _ANYBODY),
        ("ListExtractionJobs", "memories.read", _ANYBODY),
        ("RetryExtractionJob", "memories.write", _ANYBODY),
        ("ConsolidateMemories", "memories.write", _ANYBODY),
        ("ListMemoryRevisions", "memories.read", _ANYBODY),
        ("RollbackMemory", "memories.write", _ANYBODY),
        ("EraseSubject", "memories.erase", _ANYBODY),
        ("ExportMemories", "memories.read", _ANYBODY),
        ("ImportMemories", "memories.write", _ANYBODY),
    ),
    "minion.memory.v1.EmbeddingModelService": (
        ("RegisterEmbeddingModel", "embedding_models.admin", _OPERATORS),
        ("ListEmbeddingModels", "memories.read", _ANYBODY),
        ("SetDefaultEmbeddingModel", "memories.write", _ANYBODY),
        ("ReembedMemories", "memories.write", _ANYBODY),
        ("GetReembedding", "memories.read", _ANYBODY),
    ),
    "minion.activity.v1.ActivityService": (
        ("RecordActivities", "activities.write", _ANYBODY),
        ("GetActivity", "activities.read", _ANYBODY),
        ("ListActivities", "activities.read", _ANYBODY),
        ("GetAgentStats", "activities.read", _ANYBODY),
    ),
    "minion.activity.v1.EvaluationService": (("CheckGate", "evaluations.read", _ANYBODY),),
    "minion.gateway.v1.RunService": (
        ("CreateRun", "runs.write", _ANYBODY),
        ("StreamRun", "runs.write", _ANYBODY),
        ("GetRun", "runs.read", _ANYBODY),
        ("ListRuns", "runs.read", _ANYBODY),
        ("ListRunSteps", "runs.read", _ANYBODY),
        ("WatchRun", "runs.read", _ANYBODY),
    ),
    "minion.gateway.v1.InferenceService": (
        ("Complete", "inference.use", _ANYBODY),
        ("StreamComplete", "inference.use", _ANYBODY),
        ("Embed", "inference.use", _ANYBODY),
        ("ListModels", "inference.use", _ANYBODY),
    ),
}


def _rules() -> Iterator[tuple[str, Rule]]:
    for service, rows in _TABLE.items():
        for method, permission, callers in rows:
            yield f"/{service}/{method}", Rule(permission, callers)


# By full method name, as it stands on the wire: `/minion.session.v1.SessionService/GetSession`.
RULES: Mapping[str, Rule] = dict(_rules())
