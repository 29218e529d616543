"""Hostile input: what each reader of foreign bytes promises, checked for bytes of any kind. See docs/fuzzing.md."""
