"""A family as a Gymnasium environment, and as a vector environment."""
