"""Formats as bytes and strings only: no socket, no clock, no file."""
