"""What leaves a store for other programs: predictions of a kept network, ONNX files, and studies for Optuna's tools."""
