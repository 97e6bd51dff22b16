"""Gymnasium environments of one's own as families, stepped in processes of their own."""
