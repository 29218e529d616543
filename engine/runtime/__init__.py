"""Processes: the agent loop, child processes, the supervisor, the embedded server, logs and status."""
