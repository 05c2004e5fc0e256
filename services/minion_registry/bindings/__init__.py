"""Bindings: which tools an agent may call, and how."""
