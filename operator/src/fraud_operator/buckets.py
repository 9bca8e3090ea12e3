"""Whether a detector's bucket will do: it is there, its keys may write to it, and it has conditional PUT.

Delta's commits rest on conditional PUT: without it two writers overwrite each other's. A bucket is asked on a thread of its own, once
for each folder and set of keys. While the answer is bad it is asked again, less and less often; one that was good is only listed from then
on, once a minute, and is bad when two looks in a row say so. A pass reads the last answer; another one than it read leads to a pass.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import S3Store

from fraud_contracts import object_store
from fraud_operator.desired.documents import decoded
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import UNREACHABLE, StorageFact
from fraud_operator.objects import Json
from fraud_operator.references import NOT_IN_A_HEADER, SecretReference, lacking_in
from fraud_operator.storage import FIELD, SECRET_FIELD

LOG: Final = logging.getLogger(__name__)
DEFAULT_FIELD: Final = "the chart's storage"
CHECKED: Final = StorageFact(True, "Checked", "the bucket is there, may be written and has conditional PUT")
CHECKING: Final = StorageFact(None, "Checking", "the bucket is being asked")
OBJECT: Final = ".fraud-platform-check"
# Of one request; there are four at most, none of which is tried again.
_TIMEOUTS: Final = {"connect_timeout": "3s", "timeout": "5s"}
# A pass waits so long for the first answer of a bucket, which saves it a second pass where the store is near.
_MOMENT: Final = 0.5
FIRST_RETRY: Final = 10.0
LONGEST_RETRY: Final = 60.0
# From one good answer to the next look.
AGAIN: Final = 60.0
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_DENIED: Final = ("401", "403")
# What stores say of a key's id that they don't know, under whichever status.
_UNKNOWN_KEY: Final = re.compile("AccessKey|User")
_CONDITION_HELD: Final = (exceptions.AlreadyExistsError, exceptions.PreconditionError)


@dataclass(frozen=True)
class Bucket:
    """``field`` says where its URI is written, ``owner`` whose keys the credentials are: both for people.

    ``credentials`` are by AWS's names for the environment; none where a role opens the store, which then lies in ``region``.
    """

    uri: str
    field: str
    owner: str
    credentials: Mapping[str, str]
    region: str = ""

    @property
    def words(self) -> str:
        """The bucket and where it is, without what else its endpoint may hold."""
        place = object_store.place(self.uri)
        endpoint = self.credentials.get(object_store.ENDPOINT, "")
        host = endpoint.partition("://")[2].partition("/")[0].rpartition("@")[2]
        return f"bucket {place.bucket if place else self.uri} at {host or 'AWS'}"

    @property
    def key(self) -> str:
        """Of the same folder and the same keys; holds none of them."""
        return self._digest(self.uri)

    def keys_digest(self, uid: str) -> str:
        """Of the credentials, for people to see: salted, so that nobody compares it with another detector's or a list of keys'."""
        return self._digest(uid)[:12] if self.credentials else ""

    def _digest(self, salt: str) -> str:
        text = json.dumps([salt, sorted(self.credentials.items())])
        return hashlib.sha256(text.encode()).hexdigest()


def bucket_of(detector: Detector, secret: Json | None) -> Bucket | StorageFact:
    """What is to be asked of a detector's storage, or what can be said without asking.

    ``secret`` is the Secret that its spec names, as the API server has it. The platform's own storage is asked once for all
    detectors, in the folder that theirs lie in.
    """
    settings, ref = detector.platform.storage, detector.storage_reference
    faults = detector.storage_faults
    if faults:  # of a spec that was good once: nothing of it is asked with the platform's keys
        return StorageFact(False, "ValidationFailed", str(faults[0]))
    if detector.storage_path is not None:
        return StorageFact(True, "NodeFolder", f"{detector.storage_uri} is a folder of one node")
    if ref is None:
        where, again = DEFAULT_FIELD, "and restart the operator, which reads it at its start"
        if settings.secret:
            where = f"the chart's storage.existingSecret: Secret {settings.secret}"
            absent = [key for key in object_store.REQUIRED_KEYS if key not in settings.credentials]
            if absent:
                message = f"{where} lacks {' and '.join(absent)}; put it in {again}"
                return StorageFact(False, "SecretKeyMissing", message)
        owner = f"{DEFAULT_FIELD}: the platform's {'keys' if settings.credentials else 'role'}"
        bucket = Bucket(
            settings.uri.rstrip("/"), DEFAULT_FIELD, owner, settings.credentials, settings.role_region
        )
        return _broken_value(settings.credentials, where, again) or bucket
    reference = SecretReference(SECRET_FIELD, ref.name, (object_store.REQUIRED_KEYS,))
    lacking = lacking_in(reference, detector.namespace, secret)
    if lacking is not None:
        return StorageFact(False, lacking.reason, lacking.message)
    data = (secret or {}).get("data") or {}
    values = decoded({key: value for key, value in data.items() if key in object_store.KEYS})
    owner = f"{reference.field}: Secret {ref.name} in {detector.namespace}"
    return _broken_value(values, owner) or Bucket(detector.storage_uri, FIELD, owner, values)


def _broken_value(values: Mapping[str, str], where: str, again: str = "") -> StorageFact | None:
    """Of the first value that no header of a request may hold; the Pods' clients would fail over it as the operator's does."""
    for key, value in sorted(values.items()):
        if NOT_IN_A_HEADER.search(value):
            remedy = f"put it in without one, as printf and not echo writes it {again}".strip()
            what = f"{key} has a line break, a space or another character that no key has"
            return StorageFact(False, "SecretKeyBroken", f"{where}: {what}: {remedy}")
    return None


@dataclass
class _Answer:
    """``doubted``: it was good, and the last look wasn't."""

    fact: StorageFact = CHECKING
    doubted: bool = False
    due: float = 0.0
    pause: float = FIRST_RETRY
    running: Future[None] | None = None


@dataclass
class Buckets:
    """The last answer of each bucket. Safe to use from several threads. ``clock`` is in seconds.

    ``ask`` is told whether the bucket was good when it was last asked.
    """

    ask: Callable[[Bucket, bool], StorageFact] = field(default_factory=lambda: ask)
    clock: Callable[[], float] = time.monotonic
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "bucket"))
    _answers: dict[str, _Answer] = field(default_factory=dict)
    # What the last pass of a detector read.
    _read: dict[DetectorKey, tuple[Bucket, StorageFact]] = field(default_factory=dict)
    # Reentrant: a pool may run what it is given at once.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, key: DetectorKey, bucket: Bucket) -> StorageFact:
        """For a detector's pass."""
        answer, begins = self._begin(bucket)
        if begins and answer.running is not None and answer.fact is CHECKING:
            wait([answer.running], _MOMENT)
        with self._lock:
            fact = answer.fact
            self._read[key] = bucket, fact
        return fact

    def turned(self, key: DetectorKey) -> bool:
        """Whether the answer isn't what the last pass read, said once. Asks again where it is time."""
        with self._lock:
            if key not in self._read:
                return False
            bucket, before = self._read[key]
            fact = self._begin(bucket)[0].fact
            self._read[key] = bucket, fact
        return fact != before

    def forget(self, key: DetectorKey) -> None:
        with self._lock:
            self._read.pop(key, None)

    def _begin(self, bucket: Bucket) -> tuple[_Answer, bool]:
        """The answer, and whether a question has just begun, as it does where it is time."""
        with self._lock:
            answer = self._answers.setdefault(bucket.key, _Answer())
            idle = answer.running is None or answer.running.done()
            begins = idle and self.clock() >= answer.due
            if begins:
                answer.running = self.pool.submit(self._ask, bucket, answer)
        return answer, begins

    def _ask(self, bucket: Bucket, answer: _Answer) -> None:
        # A fault of ours, or of the client's, must neither pass for an answer nor make every pass ask again.
        message = f"{bucket.field}: {bucket.words} couldn't be asked; the operator's log says why"
        fact = StorageFact(False, "CheckFailed", message)
        try:
            fact = self.ask(bucket, bool(answer.fact.ready))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic of the client's is no Exception
            LOG.exception("bucket check broke", extra={"data": {"bucket": bucket.words}})
        finally:
            with self._lock:
                self._note(answer, fact)

    def _note(self, answer: _Answer, fact: StorageFact) -> None:
        now = self.clock()
        if fact.ready:
            answer.fact, answer.doubted, answer.due, answer.pause = fact, False, now + AGAIN, FIRST_RETRY
        elif answer.fact.ready and not answer.doubted:
            answer.doubted, answer.due = True, now + FIRST_RETRY
        else:
            answer.fact, answer.doubted, answer.due = fact, False, now + answer.pause
            answer.pause = min(LONGEST_RETRY, answer.pause * 2)


class _Step(NamedTuple):
    """What is tried, and what to say and do where the keys may not."""

    reason: str
    verb: str
    remedy: str


_LIST: Final = _Step(
    "AccessDenied", "list", "put in keys of this store that may read, write and delete there"
)
_WRITE: Final = _Step("NotWritable", "write to", "give them the right to put and to delete objects there")
_DELETE: Final = _Step("NotWritable", "delete from", "give them the right to delete objects there")


def ask(bucket: Bucket, again: bool = False) -> StorageFact:
    """Lists, writes one object twice on condition that it isn't there, deletes it; 20 s at most.

    ``again``: of a bucket that was good it only lists. Where versions are kept each write would be one more.
    """
    # No folder of its own: a store that keeps folders as such may remove an empty one beneath another who writes there.
    path, step = f"{OBJECT}-{uuid.uuid4().hex}", _LIST
    if not _is_address(bucket.credentials.get(object_store.ENDPOINT, "")):
        remedy = f"{object_store.ENDPOINT} is no address: write http:// or https://, a host and a port"
        return StorageFact(False, UNREACHABLE, f"{bucket.owner}: {remedy}")
    try:
        store = open_bucket(bucket)
        obstore.list_with_delimiter(store, OBJECT)
        if again:
            return CHECKED
        step = _WRITE
        obstore.put(store, path, b"", mode="create")
        conditional = _refuses_a_second(store, path)
        step = _DELETE
        obstore.delete(store, path)
    except (exceptions.BaseError, FileNotFoundError, ValueError) as error:
        return _failed(bucket, step, error)
    return CHECKED if conditional else _no_condition(bucket)


def open_bucket(bucket: Bucket) -> S3Store:
    """A client in the folder of its URI; each request ends within seconds and none is tried again."""
    place, credentials = object_store.place(bucket.uri), bucket.credentials
    assert place is not None
    config = {
        "access_key_id": credentials.get(object_store.ACCESS_KEY),
        "secret_access_key": credentials.get(object_store.SECRET_KEY),
        "region": credentials.get(object_store.REGION) or bucket.region or object_store.DEFAULT_REGION,
        "endpoint": credentials.get(object_store.ENDPOINT),
        # Not every store has the other kind, and there is one object to delete.
        "disable_bulk_delete": True,
    }
    return S3Store(
        place.bucket,
        prefix=place.folder or None,
        config={name: value for name, value in config.items() if value},
        client_options={**_TIMEOUTS, "allow_http": object_store.is_plain_http(credentials)},
        retry_config={"max_retries": 0},
    )


def _refuses_a_second(store: S3Store, path: str) -> bool:
    try:
        obstore.put(store, path, b"", mode="create")
    except _CONDITION_HELD:
        return True
    return False


def _code(error: Exception) -> str:
    """The store's own word for what is wrong; nothing else of its answer is shown, which may hold a key's name."""
    match = _CODE.search(str(error))
    return match[1] if match else type(error).__name__


def _is_address(endpoint: str) -> bool:
    """Whether the client can take it, which panics over what is none; an empty one stands for AWS's own."""
    try:
        parts = urlsplit(endpoint)
        return not endpoint or (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        )
    except ValueError:
        return False


def _failed(bucket: Bucket, step: _Step, error: Exception) -> StorageFact:
    code, status = _code(error), _STATUS.search(str(error))
    if (status is not None and status[1] in _DENIED) or _UNKNOWN_KEY.search(code):
        what = f"{bucket.owner} may not {step.verb} {bucket.words} ({code})"
        return StorageFact(False, step.reason, f"{what}: {step.remedy}")
    if code == "NoSuchBucket" or isinstance(error, FileNotFoundError):
        return StorageFact(False, "BucketAbsent", f"{bucket.field}: there is no {bucket.words}: make it")
    if code == "NotImplemented":
        return _no_condition(bucket)
    remedy = f"see to the store, or to {object_store.ENDPOINT} and {object_store.REGION} of {bucket.owner}"
    return StorageFact(
        False, UNREACHABLE, f"{bucket.field}: {bucket.words} gives no good answer ({code}): {remedy}"
    )


def _no_condition(bucket: Bucket) -> StorageFact:
    message = f"{bucket.field}: {bucket.words} has no conditional PUT (If-None-Match): two writers would overwrite each other's commits; use a store that has it"
    return StorageFact(False, "NoConditionalPut", message)
