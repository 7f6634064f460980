"""The view file: a weight-free, hierarchical ONNX model for looking at, made from a flat one."""
