"""The planners: what each searches, step by step, by the names of `search.algorithm`."""
