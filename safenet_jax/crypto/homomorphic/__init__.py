"""BFV: encrypted convolutions, products of two secrets, and the processes that compute them."""
