"""The command `safenet`, for whoever only serves a model or asks a server: without JAX."""
