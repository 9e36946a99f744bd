"""Compressed networks, trained to give the outputs of the original."""
