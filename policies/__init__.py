"""Networks, learners, export and the ONNX run time."""
