"""The tools that the gateway has by itself."""
