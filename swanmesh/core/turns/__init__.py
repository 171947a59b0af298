"""Whose turn it is, and how much at once: to be initiated, looked at, probed."""
