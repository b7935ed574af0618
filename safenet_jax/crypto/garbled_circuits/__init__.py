"""Circuits, and their evaluation without seeing the inputs: half gates in blocks."""
