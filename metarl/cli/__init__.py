"""The `metarl` command, one command a file."""
