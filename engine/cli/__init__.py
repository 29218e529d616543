"""The ``edge-video`` command."""
