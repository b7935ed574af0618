"""Oblivious transfer: base transfers, correlated extension, words."""
