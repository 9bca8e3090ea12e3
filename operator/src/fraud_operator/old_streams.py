"""Takes the folders of earlier streaming jobs out of a detector's bucket, once nothing can go on from them any more.

A job goes on from its own lineage's folder and from no other's, and of each feature set the newest lineage is known. So what was before
that is of no use, as far as the document of lineages goes. Since that may be an older one out of a backup, and since a bucket may serve
another cluster too, a folder stays for a month after anything was last written in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import obstore
from obstore import exceptions
from obstore.store import S3Store

from fraud_contracts import names
from fraud_contracts.lineage import Lineages
from fraud_operator.buckets import Bucket, open_bucket
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Facts, StorageFact
from fraud_operator.objects import Json
from fraud_operator.stored_states import FLINK_FOLDER, folders

LOG: Final = logging.getLogger(__name__)
_DAY_MS: Final = 86_400_000
UNTOUCHED_MS: Final = 30 * _DAY_MS
# Of one folder at once; what is left of it goes a day later.
MOST: Final = 10_000
# Whether a stream of this name is of no use any more.
Outdated = Callable[[str], bool]


def is_outdated(stream: str, detector: str, lineages: Lineages, jobs: Mapping[str, Json]) -> bool:
    """Whether no job of the detector is of this stream, nor will ever be. ``jobs`` are its FlinkDeployments, by name."""
    known, in_use = names.parse_stream(stream), lineages.in_use
    if known is None or in_use is None or known[1] >= in_use.generation:
        return False
    if stream in {one.stream for one in lineages.known} or names.flink_deployment(detector, stream) in jobs:
        return False
    return f"/{FLINK_FOLDER}/{stream}/" not in lineages.model_dump_json() + json.dumps(jobs)


@dataclass
class OldStreams:
    """Looks at each detector's bucket once a day, on a thread of its own."""

    take_out: Callable[[Bucket, Outdated, int], None] = field(default_factory=lambda: take_out)
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "old streams"))
    _looked: dict[DetectorKey, int] = field(default_factory=dict)

    def look(
        self, detector: Detector, facts: Facts, bucket_of: Callable[[Detector], Bucket | StorageFact]
    ) -> None:
        """Nothing is done while it isn't certain which lineages there are. A folder of one node is out of reach."""
        key, lineages = (detector.namespace, detector.name), facts.lineages
        if facts.now - self._looked.get(key, 0) < _DAY_MS or not facts.storage.ready:
            return
        if "FlinkDeployment" in facts.missing or facts.lineage_waits or lineages.hand_over is not None:
            return
        bucket, self._looked[key] = bucket_of(detector), facts.now
        if not isinstance(bucket, Bucket):
            return
        jobs = {name: body for (kind, name), body in facts.children.items() if kind == "FlinkDeployment"}
        own = replace(bucket, uri=detector.storage_uri)
        self.pool.submit(
            self.take_out, own, lambda stream: is_outdated(stream, detector.name, lineages, jobs), facts.now
        )

    def forget(self, namespace: str, name: str) -> None:
        """Drops what is remembered of a detector that is gone."""
        self._looked.pop((namespace, name), None)


def take_out(bucket: Bucket, outdated: Outdated, now: int) -> None:
    """Deletes what is outdated in the bucket's folder; a store that fails is told in the log, and asked again the next day."""
    try:
        store = open_bucket(bucket)
        for stream in sorted(filter(outdated, folders(store, FLINK_FOLDER))):
            deleted = delete_untouched(store, f"{FLINK_FOLDER}/{stream}/", now)
            if deleted:
                about = {"bucket": bucket.words, "stream": stream, "objects": deleted}
                LOG.info("states of an earlier job deleted", extra={"data": about})
    except (exceptions.BaseError, OSError, ValueError) as error:
        about = {"bucket": bucket.words, "error": str(error)}
        LOG.warning("states of earlier jobs not deleted", extra={"data": about})


def delete_untouched(store: S3Store, folder: str, now: int) -> int:
    """How many objects it has deleted: ``MOST`` at most, and none where any was written lately. ``folder`` ends with a slash."""
    limit = datetime.fromtimestamp((now - UNTOUCHED_MS) / 1000, UTC)
    paths: list[str] = []
    for chunk in obstore.list(store, prefix=folder, chunk_size=1_000):
        for one in chunk:
            if one["last_modified"] > limit:
                return 0
            if one["path"].startswith(folder):
                paths.append(one["path"])
    if paths:
        obstore.delete(store, paths[:MOST])
    return len(paths[:MOST])
