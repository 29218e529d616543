"""Shared memory: one process at a time against models, then two against each other."""
