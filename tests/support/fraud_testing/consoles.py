"""A console over a ledger, whose clients have the keys that a test gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fraud_console.app import Console
from fraud_contracts.clients import ClientAccess
from fraud_process.access import KeyCheck
from fraud_process.instruments import Instruments
from fraud_testing.serving import write_clients


def console(ledger: Any, folder: Path, *clients: ClientAccess) -> Console:
    """``folder`` gets the clients document; ``ledger`` may be a fake."""
    instruments = Instruments(CollectorRegistry(), detector="tests.cards")
    return Console(ledger, KeyCheck(write_clients(folder, *clients), instruments), instruments)
