"""What an export can start from. This package alone imports TensorFlow and Keras, and only inside its modules."""
