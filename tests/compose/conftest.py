"""Containers are started only when asked for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A plain `pytest` builds no images."""
    if "compose" in str(config.option.markexpr):
        return
    skip = pytest.mark.skip(reason="starts containers: make test-compose")
    for item in items:
        if item.get_closest_marker("compose"):
            item.add_marker(skip)
