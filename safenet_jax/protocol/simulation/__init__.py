"""Both parties of an inference in one process, for accuracy and tests."""
