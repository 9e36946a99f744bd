"""Trained networks and their weights."""
