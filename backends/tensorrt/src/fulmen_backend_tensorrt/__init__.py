"""Builds TensorRT engines of a model, ahead of time and without a GPU where the builder can, and serves them."""
