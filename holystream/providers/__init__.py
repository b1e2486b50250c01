"""Messages to events: knows each API, nothing of sockets."""
