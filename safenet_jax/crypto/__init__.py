"""Primitives: randomness, rings, garbled circuits, transfers, encryption; no sockets, no JAX.

- `garbled_circuits/`: computes a Boolean circuit whose inputs belong to two parties
- `oblivious_transfer/`: hands over one of two values, without telling which one was taken
- `homomorphic/`: computes on encrypted numbers (BFV): convolutions and products
- `randomness`: where all secrets are drawn from
- `ring`: arithmetic of secret shares, modulo 2^l or modulo a prime
- `bit_packing`: values of any number of bits as bytes
- `hashing`: the hash of wire labels, for garbled circuits and transfers
- `messages`: identifiers by which a message that was mixed up is found
"""
