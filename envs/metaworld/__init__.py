"""Meta-World as families, each in Meta-World's own interpreter."""
