"""What Python gets from `import metarl`, and what the command line stands on."""
