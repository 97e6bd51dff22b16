"""What a log of a system says of its unknown parameters; how logs are written and read."""
