"""Robot families from files (see README.md)."""
