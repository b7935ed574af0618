"""The network in integers: its public formats, its rings, and what it computes."""
