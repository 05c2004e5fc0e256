"""Embedding models: what vectors are made with, and which one each tenant uses."""
