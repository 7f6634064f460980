"""What the files of TensorFlow hold: graphs, their scopes, checkpoints and lookup tables."""
