"""Reference players of bandits and tabular MDPs, which know the prior and need no training."""
