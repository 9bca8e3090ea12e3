"""One whole platform for the folder: both doors, the stream in Flink, worker, sinks, all as processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fraud_testing import platform as platforms


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    platforms.need()
    with platforms.platform(tmp_path_factory.mktemp("platform")) as running:
        yield running
