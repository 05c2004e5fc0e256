"""The gateway service: runs, and every call to a model or a tool."""
