"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says how loaded the machine is, and nothing about what is tested.
settings.register_profile("swanmesh", deadline=None)
settings.load_profile("swanmesh")
