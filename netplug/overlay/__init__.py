"""Overlay networks: what the nodes of a cluster agree on, and what one node makes of it."""
