"""Formats of bytes and strings, without sockets, clocks or files."""
