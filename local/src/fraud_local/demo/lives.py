"""Leads a detector through what a few years bring, while traffic runs, and notes how long each step kept it from being Ready.

Its features are changed and the change is taken back, its job is deleted by hand, the platform is put back to an earlier version and
upgraded again, it is deleted itself and made again, a topic is made anew, Redis comes back older and then empty. What its stream goes on with each time is in docs/lives.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fraud_contracts import names
from fraud_contracts.feature_set import hash6
from fraud_contracts.lineage import Lineage
from fraud_local import earlier, version
from fraud_local.demo import observe, pod
from fraud_local.demo.chaos import PATIENCE, Chaos
from fraud_local.demo.kubectl import Kubectl, KubectlError

# Transactions of the beginning that are sent again at the end, by both doors.
RESENT = 5_000
# Of prepared traffic; it ends with the last step.
SECONDS = 4_200
# A detector that is deleted waits for its job's savepoint.
DELETED_SECONDS = 300
# A changed feature set is trained for, and answers once its version is approved.
SWITCHED_SECONDS = 1800.0
FEATURE = {"name": "customer_count_3h", "entity": "customer", "aggregate": "Count", "window": "3h"}
DATA = "/data/appendonlydir"
OLDER = "/data/older"


class Lives(Chaos):
    """``resource`` is the file with the detector, which is applied again after its deletion; ``helm_install`` takes a chart's folder and more
    arguments for helm."""

    def __init__(
        self,
        kube: Kubectl,
        detector: str,
        namespace: str,
        platform: str,
        say: Callable[[str], None],
        resource: Path,
        helm_install: Callable[..., None],
    ) -> None:
        super().__init__(kube, detector, namespace, platform, say)
        self._resource, self._helm_install = resource, helm_install
        self._before: Lineage | None = None
        self._approved = ""

    def run(self) -> None:
        self._settle("before the first step")
        self._in_redis(f"rm -rf {OLDER} && cp -r {DATA} {OLDER}")
        self._say("  Redis' file is put aside")
        # First, as training needs the labels of the newest payments, which wait for their decisions after an outage.
        self._patience = SWITCHED_SECONDS
        self._fault("feature set changed", partial(self._declare, [FEATURE]), self._answers_with_another)
        self._fault("feature set taken back", self._take_back, self._answers_as_before)
        self._declare(None)
        self._wait("the spec of before", self._whole)
        self._patience = PATIENCE
        self._fault("streaming job deleted", self._delete_job, self._job_is_another)
        self._fault("put back to an earlier version", self._put_back, partial(self._runs, earlier.TAG))
        self._fault("upgraded", self._upgrade, partial(self._runs, "dev"))
        self._fault("detector deleted and made again", self._make_detector_again, lambda: True)
        self._fault("transactions made anew", self._make_topic_again, self._is_of_a_new_generation)
        self._go_on()
        self._fault("Redis of an older file", self._put_redis_back, lambda: True)
        self._fault("FLUSHALL", self._flush, self._profiles_complete)

    def _lineage(self) -> Lineage | None:
        """The one in use, as the operator keeps it."""
        lineages = observe.lineages(self._kube, self._detector, self._namespace)
        return None if lineages is None else lineages.in_use

    def _whole(self) -> bool:
        try:
            lineage = self._lineage()
        except KubectlError:
            return False
        if lineage is None:
            return False
        self._flink = names.flink_deployment(self._detector, lineage.stream)
        return super()._whole()

    # Feature sets -----------------------------------------------------------------------------------------------------

    @property
    def _fd(self) -> tuple[str, ...]:
        return "-n", self._namespace, f"{names.PLURAL}.{names.GROUP}", self._detector

    def _declare(self, extra: list[dict[str, str]] | None) -> None:
        """What the spec declares beside the preset; None takes the part away."""
        self._before = self._before or self._lineage()
        patch = json.dumps({"spec": {"features": {"extra": extra}}})
        self._kube.kubectl("patch", *self._fd, "--type=merge", "-p", patch)

    def _annotate(self, *annotations: str) -> None:
        self._kube.kubectl("annotate", "--overwrite", *self._fd, *annotations)

    def _answers_with_another(self) -> bool:
        """Approves the version of the new set once there is one."""
        try:
            status, lineage = self._kube.get(*self._fd)["status"], self._lineage()
            candidate = status["rollout"].get("candidate")
            if candidate and candidate != self._approved:
                self._annotate(f"{names.APPROVE_ANNOTATION}={candidate}")
                self._approved = candidate
        except KubectlError:
            return False
        assert self._before is not None
        other = lineage is not None and lineage.feature_set != self._before.feature_set
        return other and self._reads(status) not in (None, hash6(self._before.feature_set))

    @staticmethod
    def _reads(status: dict[str, Any]) -> str | None:
        """The feature set that the live model reads; None where none is live, as on the way back to an earlier set."""
        found = status["release"].get("featureSet")
        return None if found is None else str(found)

    def _take_back(self) -> None:
        self._annotate(f"{names.APPROVE_ANNOTATION}-", f"{names.ROLLBACK_ANNOTATION}={self._approved}")

    def _answers_as_before(self) -> bool:
        assert self._before is not None
        try:
            status, lineage = self._kube.get(*self._fd)["status"], self._lineage()
        except KubectlError:
            return False
        same = lineage is not None and lineage.feature_set == self._before.feature_set
        return same and self._reads(status) == hash6(self._before.feature_set)

    # The platform -----------------------------------------------------------------------------------------------------

    def _put_back(self) -> None:
        chart = earlier.unpack()
        earlier.load_images()
        self._helm_install(chart, *earlier.values())

    def _upgrade(self) -> None:
        self._helm_install(version.CHART)

    def _runs(self, tag: str) -> bool:
        """Whether all containers that run our code have this tag, but for the demo's own."""
        try:
            lists = [self._kube.get("-n", one, "pods") for one in (self._namespace, self._platform)]
        except KubectlError:
            return False
        running = [
            one
            for pods in lists
            for one in pods["items"]
            if one["status"]["phase"] == "Running" and one["metadata"]["name"] != pod.NAME
        ]
        used = {container["image"] for one in running for container in one["spec"]["containers"]}
        ours = {image for image in used if image.rpartition(":")[0] in earlier.repositories()}
        return bool(ours) and all(image.endswith(f":{tag}") for image in ours)

    # The detector -----------------------------------------------------------------------------------------------------

    def _make_detector_again(self) -> None:
        timeout = f"--timeout={DELETED_SECONDS}s"
        self._kube.kubectl("delete", *self._fd, timeout, timeout=DELETED_SECONDS + 30)
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
