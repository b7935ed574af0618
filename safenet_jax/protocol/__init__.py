"""Private inference: the fixed-point model, the protocol's layers, the simulator."""
