"""Memories drawn from sessions: who is followed, what is drawn, and the jobs that do it."""
