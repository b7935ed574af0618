"""Primitives: randomness, rings, circuits, garbling, transfers, encryption; no sockets."""
