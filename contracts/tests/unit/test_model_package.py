"""The package's digest and its check, the version's tags and how a training run says that it failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.model_package import (
    PackageError,
    ServingDocument,
    canonical_json,
    check_listed,
    read_manifest,
    verify,
    write_manifest,
)
from fraud_contracts.model_version import VersionTags
from fraud_contracts.training_end import FAILURE_TAG, MAX_MESSAGE, REVISION_TAG, EndReason, TrainingFailure


def test_the_digest_is_the_files(tmp_path: Path) -> None:
    """Equal files give an equal digest wherever they lie; a changed, missing or foreign file is noticed."""
    digests = []
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        (folder / "sub" / "b.txt").write_text("b")
        digests.append(write_manifest(folder, {"feature_set": "f", "seed": 1}))
    assert digests[0] == digests[1]
    folder = tmp_path / "one"
    assert sorted(verify(folder, digests[0])["files"]) == ["a.txt", "sub/b.txt"]
    with pytest.raises(PackageError, match="digest"):
        verify(folder, "sha256:0")
    (folder / "a.txt").write_text("changed")
    with pytest.raises(PackageError, match="was changed"):
        verify(folder, digests[0])
    (folder / "a.txt").unlink()
    with pytest.raises(PackageError, match="lacks"):
        verify(folder)
    (folder / "manifest.json").write_bytes(canonical_json({"files": {"../two/a.txt": "0"}}))
    with pytest.raises(PackageError, match="outside"):
        verify(folder)
    with pytest.raises(PackageError, match="no manifest"):
        verify(tmp_path)


def test_bytes_are_checked_as_files_are(tmp_path: Path) -> None:
    """A reader without the folder checks the manifest by the digest and one file by the manifest."""
    (tmp_path / "a.txt").write_bytes(b"a")
    digest = write_manifest(tmp_path, {})
    manifest = read_manifest((tmp_path / "manifest.json").read_bytes(), digest)
    check_listed(manifest, "a.txt", b"a")
    with pytest.raises(PackageError, match=r"a\.txt"):
        check_listed(manifest, "a.txt", b"a ")
    for data in (b"{", b"[]", b"{}"):
        with pytest.raises(PackageError):
            read_manifest(data)


def test_the_serving_document_comes_back_whole() -> None:
    """What training writes is what the operator and the predictor read; a part that is missing is refused."""
    document = ServingDocument(
        "f", ["a", "b"], [(0.0, 0.0), (1.0, 1000.0)], -2.5, {"slope": 1.0, "offset": 0.0}
    )
    assert ServingDocument.parse(document.to_json()) == document
    for data in (b"no JSON", b"[]", b'{"feature_set": "f"}'):
        with pytest.raises(PackageError, match=r"serving\.json"):
            ServingDocument.parse(data)


def test_tags_come_back_whole() -> None:
    """A version's tags are text and give again what training put in them; those of an older training lack some."""
    tags = VersionTags("sha256:0", "f", "r", "v1", 4, 12, "d", 1_780_000_000_000, {"decisions": {"0": 3}})
    assert VersionTags.parse(tags.to_tags()) == tags
    assert VersionTags.parse({"digest": "sha256:0", "feature_set": "f"}) == VersionTags("sha256:0", "f")


@pytest.mark.parametrize(
    "tags", [{"digest": "d"}, {"feature_set": "f"}, {"digest": "d", "feature_set": "f", "seeds": "x"}]
)
def test_a_version_without_its_tags_is_refused(tags: dict[str, str]) -> None:
    """A version that names no digest or no feature set isn't ours, and a tag that can't be read is no version's."""
    with pytest.raises(PackageError, match="tag"):
        VersionTags.parse(tags)


def test_a_failed_run_says_why_in_its_tags() -> None:
    """Reason, message and end come back from the run's tags; a long message is cut, and other tags are no failure."""
    failure = TrainingFailure(reason=EndReason.TOO_FEW_LABELS, message="7 of 500", ended=5)
    tags = failure.to_tags("r")
    assert tags[REVISION_TAG] == "r"
    assert TrainingFailure.parse(tags) == failure
    long = TrainingFailure.parse(failure.model_copy(update={"message": "x" * 9_000}).to_tags("r"))
    assert long is not None and len(long.message) == MAX_MESSAGE
    assert TrainingFailure.parse({}) is None
    assert TrainingFailure.parse({FAILURE_TAG: "broken"}) is None
