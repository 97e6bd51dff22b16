"""Reading what others made: archives, pickles, arrays, tables and texts that may be damaged, foreign or hostile."""
