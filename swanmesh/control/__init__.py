"""The control socket: what the service offers to people and programs on this host, and its client."""
