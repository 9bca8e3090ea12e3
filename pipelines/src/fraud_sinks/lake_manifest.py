"""``python -m fraud_sinks.lake_manifest``: what the lake's tables hold now, one JSON object a line.

``--files`` lists the files, too. Reads only, so it may run anywhere, beside the sink.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from fraud_contracts import lake
from fraud_contracts import log as logs
from fraud_contracts.config import DetectorConfig, load_config
from fraud_contracts.lake_snapshot import Manifest, manifest
from fraud_sinks.lake_tables import DECISIONS, LABELS

log = logging.getLogger(__name__)


def read(config: DetectorConfig, name: str) -> Manifest:
    """TableNotFoundError before the sink's first commit."""
    uri = lake.table(config.storage_uri, name)
    table = DeltaTable(uri, storage_options=lake.storage_options(uri, os.environ))
    group, topic = config.identity.group("lake-sink"), config.identity.topic(name)
    return manifest(table, name, group, topic, config.kafka.partitions)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fraud_sinks.lake_manifest")
    parser.add_argument("--files", action="store_true", help="list every file")
    files = parser.parse_args(argv).files
    logs.setup()
    config = load_config()
    for kind in (DECISIONS, LABELS):
        try:
            snapshot = read(config, kind.name)
        except TableNotFoundError:
            log.warning("not there yet", extra={"data": {"table": kind.name}})
            continue
        except (DeltaError, OSError) as error:
            log.error("not readable", extra={"data": {"table": kind.name, "error": str(error)}})
            return 1
        document = {**snapshot, "files": snapshot["files"] if files else len(snapshot["files"])}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
