"""Memory between processes: files in /dev/shm with one writer a word."""
