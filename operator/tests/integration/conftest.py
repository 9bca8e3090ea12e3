"""A real etcd and kube-apiserver on loopback, with our CRD and, where they were fetched, the upstream ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fraud_testing.api_server import Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for tests that kill it, or that count all writes to it; with the garbage collector."""
    with serve(tmp_path_factory.mktemp("own-api")) as server:
        server.api.start_collector()
        yield server
