"""From a network in an ONNX file to layer records and weights; nothing in the file is run."""
