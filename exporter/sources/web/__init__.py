"""Models of TensorFlow.js: a `model.json` with the weights in files beside it."""
