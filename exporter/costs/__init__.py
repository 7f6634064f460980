"""What layers and ONNX nodes cost in one run: operations, bytes of activations. Reads no weight."""
