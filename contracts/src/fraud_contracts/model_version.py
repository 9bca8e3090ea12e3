"""A model version in the registry: its two aliases, and the tags that training puts on it and others read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from fraud_contracts.lineage import Positions
from fraud_contracts.model_package import PackageError
from fraud_contracts.training_end import REVISION_TAG

# What is live. Set by the operator alone, which never reads it to decide what goes live.
CHAMPION: Final = "champion"
# What is to go live next. Set by training, or by a person.
CHALLENGER: Final = "challenger"
_POSITIONS: Final = TypeAdapter(Positions)
_TOPICS: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class VersionTags:
    """``digest`` and ``feature_set`` are in every version; the rest may be absent from one of an older training.

    ``epoch`` is of the detector's profiles, ``seeds`` the count of profiles written, ``data`` the digest of the examples,
    ``as_of`` the time that labels were judged from (UTC ms), ``lake`` the snapshot of the lake that was read. ``starts_at``: the first
    records of the stream's sources that were left out of it, so that a stream with these seeds may go on there; ``since`` by the
    same the times of the oldest that the sources held then (UTC ms), ``topics`` the sources' ids by noun.
    """

    digest: str
    feature_set: str
    training_revision: str = ""
    code: str = ""
    epoch: int = 0
    seeds: int = 0
    data: str = ""
    as_of: int | None = None
    lake: Any = None
    starts_at: Positions | None = None
    since: Positions | None = None
    topics: Mapping[str, str] | None = None

    def to_tags(self) -> dict[str, str]:
        """As the registry keeps them: text, and no tag where there is nothing to say."""
        tags = {
            "digest": self.digest,
            "feature_set": self.feature_set,
            REVISION_TAG: self.training_revision,
            "code": self.code,
            "epoch": str(self.epoch),
            "seeds": str(self.seeds),
            "data": self.data,
            "as_of": "" if self.as_of is None else str(self.as_of),
            "lake": _packed(self.lake),
            "starts_at": _packed(self.starts_at),
            "since": _packed(self.since),
            "topics": _packed(self.topics),
        }
        return {name: text for name, text in tags.items() if text}

    @classmethod
    def parse(cls, tags: Mapping[str, str]) -> VersionTags:
        """PackageError names the tags that are missing or can't be read."""
        missing = [name for name in ("digest", "feature_set") if not tags.get(name)]
        if missing:
            raise PackageError(f"no tag {', '.join(missing)}: it wasn't made by our training")
        try:
            return cls(
                digest=tags["digest"],
                feature_set=tags["feature_set"],
                training_revision=tags.get(REVISION_TAG, ""),
                code=tags.get("code", ""),
                epoch=int(tags.get("epoch") or 0),
                seeds=int(tags.get("seeds") or 0),
                data=tags.get("data", ""),
                as_of=int(tags["as_of"]) if tags.get("as_of") else None,
                lake=json.loads(tags["lake"]) if tags.get("lake") else None,
                starts_at=_POSITIONS.validate_json(tags["starts_at"]) if tags.get("starts_at") else None,
                since=_POSITIONS.validate_json(tags["since"]) if tags.get("since") else None,
                topics=_TOPICS.validate_json(tags["topics"]) if tags.get("topics") else None,
            )
        except ValueError as error:
            raise PackageError(f"a tag can't be read: {error}") from error


def _packed(value: Any) -> str:
    return "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))
