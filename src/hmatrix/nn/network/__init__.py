"""The layers of a whole network: found, measured, given their bytes, replaced."""
