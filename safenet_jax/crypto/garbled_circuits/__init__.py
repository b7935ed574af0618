"""Circuits, and their evaluation without seeing the inputs: half gates in blocks.

- `circuits`: builds a Boolean circuit: sums, comparisons, the sign of a ReLU
- `garbling`: the garbler and the evaluator of a circuit, for many inputs at once
- `garbled_block`: the message between them, and the check that it carries
- `half_gates`: the arithmetic of the gates, one tile of instances at a time
- `compiled_circuit`: a circuit as the list of steps that `half_gates` goes through
- `wires`: the bits of words, packed as wires hold them
- `argmax`: the circuits that find the largest of several words
- `garbled_argmax`: the garbler and the evaluator of those
"""
