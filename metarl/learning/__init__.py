"""What agents learn with: collection, returns and advantages, the inner loop, trust-region steps."""
