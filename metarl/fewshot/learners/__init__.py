"""Few-shot learners, one a file."""
