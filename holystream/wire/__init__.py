"""Bytes to messages: HTTP and server-sent events, nothing of LLMs."""
