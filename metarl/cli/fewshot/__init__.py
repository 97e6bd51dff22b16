"""`metarl fewshot`: supervised few-shot learning; one command a file, main.py has the list of them."""

from metarl.cli.fewshot.main import fewshot_command

__all__ = ["fewshot_command"]
