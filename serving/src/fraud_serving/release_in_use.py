"""The release that a process decides by: both doors take a new one here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fraud_contracts import metrics
from fraud_contracts.config import DetectorConfig
from fraud_contracts.release import Release
from fraud_pipelines.events import Tokeniser
from fraud_process.instruments import Instruments
from fraud_serving.ruling import Door, Ruling

_log = logging.getLogger(__name__)


class ReleaseInUse:
    """``ruling`` is None until the first release arrives, then replaced whole, so that a decision is made by one release.

    Its release has the names of two where the model is of one and the policy of a later one: no replica then says that it uses either.
    ``names`` are the columns of the vectors that this process reads, those of the detector document's feature set.
    """

    def __init__(
        self,
        config: DetectorConfig,
        names: Sequence[str],
        tokeniser: Tokeniser,
        instruments: Instruments,
        door: Door,
    ) -> None:
        self._config, self._names, self._tokeniser = config, names, tokeniser
        self._instruments, self._door = instruments, door
        self.ruling: Ruling | None = None
        self._whole: Release | None = None  # the last one that was taken as it is

    @property
    def name(self) -> str | None:
        return None if self.ruling is None else self.ruling.release.name

    def take(self, release: Release) -> None:
        """Decides by this release from now on; its problems are logged, what of it can't be used is left out.

        One whose model reads another feature set is for the process that is about to take this one's place: while the model
        in use reads this process's own, it goes on. Only the policy is taken, and not where it names what this set lacks.
        """
        whole = self._whole
        if whole is None or not self._of_a_successor(release):
            self._whole = release
            self._use(self._ruling(release))
            return
        own = self._ruling(_with_policy(whole, release))
        problems = own.policy.problems
        data = {
            "release": release.name,
            "model_of": whole.name,
            "policy_taken": not problems,
            "problems": problems,
        }
        _log.warning("release is of a successor", extra={"data": data})
        if not problems:
            self._use(own)

    def _ruling(self, release: Release) -> Ruling:
        return Ruling(
            release,
            self._config.spec,
            self._config.feature_set,
            self._names,
            self._tokeniser,
            self._count_failed_rule,
        )

    def _use(self, ruling: Ruling) -> None:
        release = ruling.release
        for problem in ruling.problems:
            _log.error("release has a problem", extra={"data": {"release": release.name, "problem": problem}})
        if self.ruling is not None:
            self._show(self.ruling.release, 0)
        self._show(release, 1)
        self.ruling = ruling

    def _of_a_successor(self, release: Release) -> bool:
        if self.ruling is None or self.ruling.stable is None or release.stable is None:
            return False
        return release.stable.feature_set != self._config.feature_set

    def _show(self, release: Release, value: int) -> None:
        version = release.stable.version if release.stable else ""
        self._instruments(metrics.RELEASE_INFO, release=release.name, model_version=version).set(value)

    def _count_failed_rule(self, rule: str) -> None:
        self._instruments(metrics.RULES_FAILED, door=self._door, rule=rule).inc()


def _with_policy(kept: Release, of: Release) -> Release:
    """The live model of one release, and the policy of another one."""
    return Release(
        name=f"{kept.name}+{of.name}",
        stable=kept.stable,
        policy=of.policy,
        policy_revision=of.policy_revision,
    )
