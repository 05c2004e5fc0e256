"""API keys: the credentials of tenants."""
