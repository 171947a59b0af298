"""Certificates, this host's and the peers': when they begin and end, are due, and are revoked."""
