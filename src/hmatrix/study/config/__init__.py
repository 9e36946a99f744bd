"""Settings of a study, and where they come from."""
