"""What few-shot learners are made of: what a learner is, backbones, heads, executors of meta-gradients."""
