"""What the client does for its streams, for functions that are not ours."""
