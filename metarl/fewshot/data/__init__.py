"""Data sets for few-shot learning, one kind a file."""
