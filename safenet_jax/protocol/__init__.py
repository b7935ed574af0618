"""Private inference by two parties: layers, modes, the service, the simulator."""
