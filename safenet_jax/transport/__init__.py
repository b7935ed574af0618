"""Bytes between two parties: frames, channels, TLS, links and the ledger. Knows no layer."""
