"""The points of a study, measured and kept."""
