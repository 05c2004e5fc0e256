"""The agents that runs are driven by, as the registry keeps them: resolved once, kept right by its feed."""
