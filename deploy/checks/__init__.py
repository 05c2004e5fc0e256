"""Checks of what `deploy/` says about metrics: rules, dashboards and Prometheus' own configuration."""
