"""Exit codes of the command."""

BAD_INPUT = 2
"""After a user error."""
INTERRUPTED = 130
"""Of a training that a signal ended early, and of what nobody reads any more."""
