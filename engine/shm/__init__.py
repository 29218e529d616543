"""Memory shared between processes: files in /dev/shm. Each word has one writer."""
