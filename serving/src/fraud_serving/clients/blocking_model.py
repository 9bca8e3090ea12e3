"""The predictor for the worker's one thread: the same requests and answers as ``model_client``, over kept connections."""

from __future__ import annotations

import http.client
from collections.abc import Sequence

from fraud_contracts.errors import StoreError
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.model_client import read_predictions, request_body, target
from fraud_serving.ruling import Prediction


class BlockingModelClient:
    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._kept: dict[tuple[str, int], http.client.HTTPConnection] = {}

    def score(
        self,
        package: ModelPackage,
        service: str,
        rows: Sequence[Sequence[float | None]],
        explain: bool = True,
        seconds: float | None = None,
    ) -> list[Prediction]:
        """Scores of a batch in one call; StoreError where the predictor failed or took longer than ``seconds`` (the client's)."""
        seconds = seconds or self._timeout
        host, port, path = target(package, service)
        body = request_body(rows, explain)
        kept = self._kept.pop((host, port), None)
        try:
            if kept is not None:
                try:
                    if kept.sock is not None:
                        kept.sock.settimeout(seconds)
                    return self._ask(kept, path, body, package, len(rows))
                except (http.client.HTTPException, ConnectionError):
                    kept.close()  # closed by the predictor while it lay idle; once more on a new one
            fresh = http.client.HTTPConnection(host, port, timeout=seconds)
            return self._ask(fresh, path, body, package, len(rows))
        except (OSError, http.client.HTTPException) as error:
            raise StoreError("predictor", f"{type(error).__name__}: {error}") from error

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: bytes,
        package: ModelPackage,
        count: int,
    ) -> list[Prediction]:
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._kept[connection.host, connection.port] = connection
        return read_predictions(package, answer.status, data, count)
