"""From a model to an ONNX structure, through tf2onnx."""
