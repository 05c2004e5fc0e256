"""The registry: tenants, their API keys, their agents and tools, and what changed."""
