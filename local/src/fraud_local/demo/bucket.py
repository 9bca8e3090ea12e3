"""The platform's object store from outside of the cluster: through kubectl's port-forward, with the trial store's own key.

The demo puts history where training looks for it, and exchanges files with its Pod there: no Pod mounts a folder of the node.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.store import S3Store

from fraud_contracts import names, object_store
from fraud_local.demo.kubectl import Kubectl

PORT = 9000


class Bucket:
    """``uri`` is the platform's storage, which holds the detectors' folders and the demo's."""

    def __init__(self, kube: Kubectl, platform: str) -> None:
        self._kube, self._platform = kube, platform
        settings = kube.get("-n", platform, "configmap", f"{platform}-operator")["data"]["platform.json"]
        self.uri = str(json.loads(settings)["storage"]["uri"])

    @contextmanager
    def _open(self) -> Iterator[S3Store]:
        place = object_store.place(self.uri)
        assert place is not None
        secret = self._kube.get("-n", self._platform, "secret", f"{self._platform}-stores")
        password = base64.b64decode(secret["data"]["OBJECTS_PASSWORD"]).decode()
        objects = f"{self._platform}-objects"
        store = self._kube.get("-n", self._platform, "deployment", objects)
        (container,) = store["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        with self._kube.forward(f"svc/{objects}", self._platform, PORT) as port:
            yield S3Store(
                place.bucket,
                prefix=place.folder or None,
                endpoint=f"http://127.0.0.1:{port}",
                access_key_id=variables["ROOT_ACCESS_KEY_ID"],
                secret_access_key=password,
                region=object_store.DEFAULT_REGION,
                client_options={"allow_http": True},
            )

    def put(self, files: dict[str, Path]) -> None:
        """Uploads local files, by their keys below the platform's storage."""
        with self._open() as store:
            for key, path in files.items():
                obstore.put(store, key, path)

    def fetch(self, folder: str, target: Path) -> None:
        """Downloads every object of a folder into a local one."""
        with self._open() as store:
            for page in obstore.list(store, folder):
                for entry in page:
                    data = obstore.get(store, entry["path"]).bytes()
                    (target / Path(entry["path"]).name).write_bytes(data)


def detector_folder(namespace: str, name: str) -> str:
    """Of a detector that gives no storage of its own, below the platform's."""
    return str(names.Identity(namespace, name))
