"""`python -m swanmesh`."""

from swanmesh.cli.main import entry

entry()
