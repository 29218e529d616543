"""Formats: golden bytes, round trips, and what must be refused."""
