"""Leads a detector through what a few years bring, while traffic runs, and notes how long each step kept it from being Ready.

Its job is deleted by hand, it is deleted itself and made again, a topic is made anew, Redis comes back older and then empty. What
its stream goes on with each time is in docs/lives.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fraud_contracts import names
from fraud_contracts.lineage import LINEAGES_KEY, Lineage, Lineages
from fraud_local.demo import pod
from fraud_local.demo.chaos import Chaos
from fraud_local.demo.kubectl import Kubectl, KubectlError

# Transactions of the beginning that are sent again at the end, by both doors.
RESENT = 5_000
# A detector that is deleted waits for its job's savepoint.
DELETED_SECONDS = 300
DATA = "/data/appendonlydir"
OLDER = "/data/older"


class Lives(Chaos):
    """``resource`` is the file with the detector, which is applied again after its deletion."""

    def __init__(
        self,
        kube: Kubectl,
        detector: str,
        namespace: str,
        platform: str,
        say: Callable[[str], None],
        resource: Path,
    ) -> None:
        super().__init__(kube, detector, namespace, platform, say)
        self._resource = resource
        self._before: Lineage | None = None

    def run(self) -> None:
        self._settle("before the first step")
        self._in_redis(f"rm -rf {OLDER} && cp -r {DATA} {OLDER}")
        self._say("  Redis' file is put aside")
        self._fault("streaming job deleted", self._delete_job, self._job_is_another)
        self._fault("detector deleted and made again", self._make_detector_again, lambda: True)
        self._fault("transactions made anew", self._make_topic_again, self._is_of_a_new_generation)
        self._go_on()
        self._fault("Redis of an older file", self._put_redis_back, lambda: True)
        self._fault("FLUSHALL", self._flush, self._profiles_complete)

    def _lineage(self) -> Lineage | None:
        """The one in use, as the operator keeps it."""
        pointer = self._kube.get("-n", self._namespace, "configmap", names.release_pointer(self._detector))
        text = (pointer.get("data") or {}).get(LINEAGES_KEY)
        return Lineages.model_validate_json(text).in_use if text else None

    def _whole(self) -> bool:
        try:
            lineage = self._lineage()
        except KubectlError:
            return False
        if lineage is None:
            return False
        self._flink = names.flink_deployment(self._detector, lineage.stream)
        return super()._whole()

    # The detector -----------------------------------------------------------------------------------------------------

    def _make_detector_again(self) -> None:
        kind = f"{names.PLURAL}.{names.GROUP}"
        timeout = f"--timeout={DELETED_SECONDS}s"
        self._kube.kubectl(
            "-n", self._namespace, "delete", kind, self._detector, timeout, timeout=DELETED_SECONDS + 30
        )
        self._kube.kubectl("apply", "-f", str(self._resource))

    # Topics -----------------------------------------------------------------------------------------------------------

    def _make_topic_again(self) -> None:
        """Nothing is sent to it meanwhile, and all of it has been decided: who deletes a topic loses what nobody has read."""
        self._before = self._lineage()
        self._in_traffic("touch", pod.HOLD)
        self._wait("stream drained", self._drained)
        topic = names.kafka_topic(self._detector, "transactions")
        self._kube.kubectl("-n", self._namespace, "delete", "kafkatopics.kafka.strimzi.io", topic)

    def _drained(self) -> bool:
        sent = self._in_traffic("cat", pod.HOLD).strip()
        return bool(sent) and self._streamed() >= int(sent)

    def _streamed(self) -> int:
        """Decisions of the stream door in the ledger."""
        schema = names.Identity(self._namespace, self._detector).database_schema
        query = f"SELECT count(*) FROM \"{schema}\".decisions WHERE record ->> 'door' = 'stream'"  # noqa: S608 - our own name
        deployment = f"deploy/{self._platform}-postgres"
        ask = f"psql -h /tmp -U fraud -d postgres -tAc {json.dumps(query)}"
        return int(
            self._kube.kubectl("-n", self._platform, "exec", deployment, "--", "sh", "-c", ask).strip()
        )

    def _is_of_a_new_generation(self) -> bool:
        try:
            lineage = self._lineage()
        except KubectlError:
            return False
        old = self._before.generation if self._before is not None else 0
        return lineage is not None and lineage.generation > old

    def _go_on(self) -> None:
        self._in_traffic("rm", pod.HOLD)

    def _in_traffic(self, *command: str) -> str:
        return self._kube.kubectl("-n", self._namespace, "exec", pod.NAME, "--", *command)

    # Redis ------------------------------------------------------------------------------------------------------------

    def _in_redis(self, command: str) -> str:
        target = f"deploy/{self._platform}-redis"
        return self._kube.kubectl("-n", self._platform, "exec", target, "--", "sh", "-c", command)

    def _put_redis_back(self) -> None:
        """Its file of the beginning in place of today's; it ends without writing another."""
        self._in_redis(f"test -d {OLDER} && rm -rf {DATA} && mv {OLDER} {DATA}")
        uptime = self._uptime()
        try:
            self._redis("SHUTDOWN NOSAVE FORCE")
        except KubectlError:
            self._say("  Redis is down")  # the connection ends with it, which redis-cli takes for an error
        self._wait("Redis", lambda: self._uptime() < uptime or uptime < 1)

    def _uptime(self) -> int:
        """Seconds since its start; a large number where it doesn't answer."""
        try:
            lines = self._redis("INFO server").splitlines()
            return int(next(line for line in lines if line.startswith("uptime_in_seconds:")).split(":")[1])
        except (KubectlError, StopIteration):
            return 1 << 30
