"""What every room may use: checks, memory, files."""
