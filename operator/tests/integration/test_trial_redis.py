"""The trial's Redis as the chart starts it: the operator's own login is its Secret's, the detectors' are in a file."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from fraud_contracts.names import Identity
from fraud_operator import redis_logins
from fraud_operator.store_login import StoreAdmin, new_login
from fraud_testing import redis as redis_server
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.operator_process import find, render
from fraud_testing.required import require

pytestmark = pytest.mark.integration
DETECTOR = Identity("pay", "cards")


def reachable(url: str) -> bool:
    with closing(redis.Redis.from_url(url)) as client:
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return False
        except redis.ConnectionError:
            return False


@contextmanager
def started(script: Path, password: str, port: int) -> Iterator[str]:
    """The server for the block; its address with that password, once it answers."""
    command = ["sh", str(script)]
    with subprocess.Popen(command, env={**os.environ, "REDIS_PASSWORD": password}) as process:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        try:
            wait_for(lambda: reachable(url), 20, "the trial's Redis")
            yield url
        finally:
            end(process, signal.SIGTERM, 10)


def test_detectors_users_outlive_a_restart_and_another_password(tmp_path: Path) -> None:
    """A changed password of the operator's counts from the next start on; nobody gets in without one."""
    require(redis_server.missing())
    port, login = free_port(), new_login(DETECTOR.redis_logins, 1)
    text = find(render(), "ConfigMap", "fraud-platform-redis")["data"]["start.sh"]
    script = tmp_path / "start.sh"
    script.write_text(
        text.replace("/data", str(tmp_path)).replace("0.0.0.0", "127.0.0.1").replace("6379", str(port))
    )
    with started(script, "first", port) as url:
        redis_logins.ensure(StoreAdmin(url), DETECTOR, login, 1)
        own = redis_logins.address(url, login)
        assert reachable(own)
        assert not reachable(f"redis://127.0.0.1:{port}/0")
        assert "first" not in (tmp_path / "users.acl").read_text()
    with started(script, "second", port) as url:
        assert reachable(own)
        assert not reachable(url.replace("second", "first"))
        redis_logins.ensure(StoreAdmin(url), DETECTOR, login, 1)
