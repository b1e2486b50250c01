"""LLM text that arrives: a blocking client that tells the truth about what it has."""
