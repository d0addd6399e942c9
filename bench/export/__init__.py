"""What leaves a store for other programs: predictions of a kept network, and ONNX files."""
