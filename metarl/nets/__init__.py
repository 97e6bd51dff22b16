"""Networks as functions of a dict of parameters: policies, memories, running scales."""
