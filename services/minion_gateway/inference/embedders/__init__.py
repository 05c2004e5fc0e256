"""Embedding models: one runs here, one is asked over the network."""
