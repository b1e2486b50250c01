"""When to try, where, and how many at once: knows verdicts, nothing of text."""
