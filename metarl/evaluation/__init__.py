"""How well trained agents adapt: the adaptation curve, its statistics and pictures, what a memory knows, films."""
