"""Names of span attributes, in one place.

GenAI, database and RPC names follow the OpenTelemetry semantic conventions 1.37 (GenAI: in development there, so they
may still move; a change is a change of this module alone). Names of our own start with `minion.`.
"""

SEMCONV_VERSION = "1.37.0"

# GenAI (https://opentelemetry.io/docs/specs/semconv/gen-ai/)
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOOL_TYPE = "gen_ai.tool.type"
GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"  # content: recorded only where the deployment asks for it
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"  # content, as above

# Values of gen_ai.operation.name
OPERATION_CHAT = "chat"
OPERATION_EMBEDDINGS = "embeddings"
OPERATION_EXECUTE_TOOL = "execute_tool"
OPERATION_INVOKE_AGENT = "invoke_agent"

# Database
DB_SYSTEM_NAME = "db.system.name"
DB_NAMESPACE = "db.namespace"
DB_OPERATION_NAME = "db.operation.name"
DB_QUERY_SUMMARY = "db.query.summary"
DB_RESPONSE_RETURNED_ROWS = "db.response.returned_rows"
DB_RESPONSE_STATUS_CODE = "db.response.status_code"

# Errors
ERROR_TYPE = "error.type"

# Ours
MINION_TENANT_ID = "minion.tenant.id"
MINION_PRINCIPAL = "minion.principal"
MINION_RUN_ID = "minion.run.id"
MINION_RUN_STEP = "minion.run.step"
MINION_RUN_STATE = "minion.run.state"
MINION_SESSION_ID = "minion.session.id"
MINION_AGENT_REVISION = "minion.agent.revision"
MINION_ATTEMPT = "minion.attempt"
MINION_COST_NANOS = "minion.cost.nanos"
MINION_COST_CURRENCY = "minion.cost.currency"
MINION_MEMORY_COUNT = "minion.memory.count"
MINION_MEMORY_PLAN = "minion.memory.plan"
MINION_ERROR_REASON = "minion.error.reason"
