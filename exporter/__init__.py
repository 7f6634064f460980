"""Convert TensorFlow and Keras models into files that can be inspected without TensorFlow."""

__version__ = "0.1.0"
