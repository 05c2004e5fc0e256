"""The same stage as the runs'."""

from tests.minion_gateway.runs.conftest import client, model_cache, owner, provider, stage

__all__ = ["client", "model_cache", "owner", "provider", "stage"]
