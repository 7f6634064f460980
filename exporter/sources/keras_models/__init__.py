"""Models of Keras, from files, functions and `keras.applications`: hollow, described, and with their weights."""
