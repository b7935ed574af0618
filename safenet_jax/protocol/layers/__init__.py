"""One gadget a file: the arithmetic of both parties, and why messages say nothing."""
