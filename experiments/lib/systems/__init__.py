"""What runs the other systems: their rows, their two parties, and gates under TFHE."""
