"""Cards: how agents present themselves to others (A2A)."""
