"""BFV: encrypted convolutions, products of two secrets, and the processes that compute them.

- `bfv`: keys, ciphertexts and their sums and products; the one importer of SEAL
- `residues`: polynomials modulo several primes, as ciphertexts hold them, and their bytes
- `packing`: which coefficient of a polynomial holds which pixel and channel
- `encrypted_convolution`: a linear layer of the server on an input that the client encrypts
- `drawn_plaintexts`: encryptions of random values in fewer bytes
- `ole`: products of a secret of one party and a secret of the other
- `replies`: what the server sends back, which gives the client its share and nothing else
- `workers`: processes that compute a reply together, each a part of every layer
"""
