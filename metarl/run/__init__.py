"""A training and its folder: settings, checkpoints, tracking, progress, and the loop that drives them."""
