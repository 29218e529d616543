"""Processes: the loop an agent runs in, children, the supervisor, the embedded server, logs and status."""
