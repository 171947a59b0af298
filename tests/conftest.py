"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests import beside

# How long an example takes says how loaded the machine is, and nothing about what is tested.
settings.register_profile("swanmesh", deadline=None)
settings.load_profile("swanmesh")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: of tests that run beside the others, begun before the rest")
    config.addinivalue_line("markers", "outside: tests lab/run itself, so runs where pytest was called")
    if (plugin := beside.plugin(config)) is not None:
        config.pluginmanager.register(plugin, "swanmesh-beside")
