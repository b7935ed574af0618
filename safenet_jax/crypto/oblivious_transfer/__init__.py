"""Oblivious transfer: a receiver learns one of several values, the sender not which one.

In the order in which they are used:

- `base_transfer`: 128 transfers by public-key cryptography
- `correlated_transfer`: millions of transfers from those 128, by symmetric cryptography
- `bit_planes`: the streams of bits behind that, and how they are transposed
- `word_transfer`: random words, and products of a bit and a word, made from the millions
- `table_transfer`: one entry of a table, likewise
- `and_triples`: shares of products of random bits, likewise
"""
