"""Primitives: randomness, rings, circuits, garbling. No sockets, no learning."""
