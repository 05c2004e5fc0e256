"""Names of span attributes, in one place.

Database, RPC and server names follow the OpenTelemetry semantic conventions 1.44.0, which `SCHEMA_URL` states on every
span's scope and resource. GenAI names follow the repository that they have moved to, semantic-conventions-genai,
at commit 002c8a6: they have no release yet and may still move; a change is a change of this module alone. Names of our
own start with `minion.`.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# GenAI (https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai)
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"
GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_AGENT_VERSION = "gen_ai.agent.version"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_MEMORY_RECORD_COUNT = "gen_ai.memory.record.count"
GEN_AI_MEMORY_RECORD_ID = "gen_ai.memory.record.id"
GEN_AI_MEMORY_STORE_ID = "gen_ai.memory.store.id"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOOL_TYPE = "gen_ai.tool.type"
# Content: recorded only where the deployment asks for it (`content.Content`)
GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"
GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result"
GEN_AI_MEMORY_QUERY_TEXT = "gen_ai.memory.query.text"

# Values of gen_ai.operation.name
OPERATION_EXECUTE_TOOL = "execute_tool"
OPERATION_INVOKE_AGENT = "invoke_agent"
OPERATION_SEARCH_MEMORY = "search_memory"
OPERATION_UPDATE_MEMORY = "update_memory"
OPERATION_UPSERT_MEMORY = "upsert_memory"
OPERATION_DELETE_MEMORY = "delete_memory"

# Database
DB_SYSTEM_NAME = "db.system.name"
DB_NAMESPACE = "db.namespace"
DB_QUERY_SUMMARY = "db.query.summary"
DB_RESPONSE_STATUS_CODE = "db.response.status_code"

# RPC
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"

# Whom a client calls
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

# Errors
ERROR_TYPE = "error.type"
EXCEPTION_TYPE = "exception.type"

# Ours
MINION_TENANT_ID = "minion.tenant.id"
MINION_PRINCIPAL = "minion.principal"
MINION_RUN_ID = "minion.run.id"
MINION_RUN_STEP = "minion.run.step"
MINION_RUN_STATE = "minion.run.state"
MINION_ATTEMPT = "minion.attempt"
MINION_COST_NANOS = "minion.cost.nanos"
MINION_COST_CURRENCY = "minion.cost.currency"
MINION_MEMORY_PLAN = "minion.memory.plan"
MINION_ERROR_REASON = "minion.error.reason"
