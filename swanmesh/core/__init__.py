"""Decides, and only that: no I/O, no clock, no log, no randomness of its own."""
