"""The memory service: keeps what agents remember of users, and finds it again by meaning."""
