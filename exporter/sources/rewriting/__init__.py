"""A converted ONNX graph, made better: smaller, faster to run and easier to read."""
