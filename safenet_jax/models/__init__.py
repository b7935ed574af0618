"""Networks: layer records, architectures, the Flax network."""
