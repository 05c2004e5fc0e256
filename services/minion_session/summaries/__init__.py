"""Summaries: what messages up to a place come to."""
