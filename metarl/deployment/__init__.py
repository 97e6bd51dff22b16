"""What leaves this project: a trained policy as a folder that runs without it."""
