"""Labelled images, and the inputs of layers and the classes that a network makes of them."""
