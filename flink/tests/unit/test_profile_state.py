"""How long Flink keeps a key's state, as it is told where no Java gateway is: in a TaskManager."""

from __future__ import annotations

import pytest
from pyflink.datastream.state import StateTtlConfig

from fraud_contracts import lifetimes
from fraud_flink.functions import profile_state

REACH = 37 * 86_400_000


def test_a_state_goes_so_long_after_its_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it changes nothing, and one whose time is over is never shown."""

    def refuse() -> None:
        raise AssertionError("there is no gateway in a TaskManager")

    monkeypatch.setattr("pyflink.common.time.get_gateway", refuse)
    config = profile_state(REACH)._ttl_config
    assert config.get_ttl().to_milliseconds() == lifetimes.state_kept(REACH)
    assert config.get_update_type() is StateTtlConfig.UpdateType.OnCreateAndWrite
    assert config.get_state_visibility() is StateTtlConfig.StateVisibility.NeverReturnExpired
    cleanup = config.get_cleanup_strategies()
    assert cleanup.get_incremental_cleanup_strategy().get_cleanup_size() == 5
    assert cleanup.get_rocksdb_compact_filter_cleanup_strategy().get_query_time_after_num_entries() == 1000
