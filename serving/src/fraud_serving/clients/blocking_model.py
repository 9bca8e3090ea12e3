"""The predictors for the worker's one thread: the same requests and answers as ``model_client``, over kept connections."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fraud_contracts.errors import StoreError
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.addresses import AddressBook, time_for
from fraud_serving.clients.model_client import read_predictions, request_body, target
from fraud_serving.ruling import Prediction


class BlockingModelClient:
    def __init__(self, timeout: float, addresses: AddressBook | None = None) -> None:
        self._timeout, self._addresses = timeout, addresses or AddressBook()
        # By name and port, then by address.
        self._kept: dict[tuple[str, int], dict[str, http.client.HTTPConnection]] = {}

    def score(
        self,
        package: ModelPackage,
        service: str,
        rows: Sequence[Sequence[float | None]],
        explain: bool = True,
        seconds: float | None = None,
    ) -> list[Prediction]:
        """Scores of a batch in one call, by the predictor whose turn it is, else by another one.

        StoreError where none answered, or all took longer than ``seconds`` (the client's).
        """
        until = time.monotonic() + (seconds or self._timeout)
        host, port, path = target(package, service)
        body = request_body(rows, explain)
        try:
            turns = self._addresses.ask(host).result(until - time.monotonic())
        except OSError as error:  # TimeoutError is one
            raise StoreError("predictor", f"no address of {host}: {error or 'no answer'}") from error
        kept = self._kept.setdefault((host, port), {})
        for gone in kept.keys() - set(turns.addresses):
            kept.pop(gone).close()
        order = turns.order(time.monotonic())
        problem = StoreError("predictor", "no answer in time")
        for number, address in enumerate(order):
            left = until - time.monotonic()
            if left <= 0:
                break
            asking = _Asking(kept, address, host, port, time_for(len(order) - number, left))
            try:
                predictions = read_predictions(package, *asking.post(path, body), len(rows))
            except (OSError, http.client.HTTPException) as error:
                problem = StoreError("predictor", f"{type(error).__name__}: {error}")
                problem.__cause__ = error
            except StoreError as error:
                problem = error
            else:
                turns.answered(address)
                return predictions
            turns.failed(address, time.monotonic())
        raise problem


@dataclass(frozen=True)
class _Asking:
    """One address, asked within ``seconds``. ``kept`` holds the connections that lie idle, by address."""

    kept: dict[str, http.client.HTTPConnection]
    address: str
    host: str
    port: int
    seconds: float

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """-> status and body of the answer."""
        kept = self.kept.pop(self.address, None)
        if kept is not None:
            try:
                if kept.sock is not None:
                    kept.sock.settimeout(self.seconds)
                return self._ask(kept, path, body)
            except (http.client.HTTPException, ConnectionError):
                kept.close()  # closed by the predictor while it lay idle; once more on a new one
        return self._ask(
            http.client.HTTPConnection(self.address, self.port, timeout=self.seconds), path, body
        )

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            headers = {"Host": self.host, "Content-Type": "application/json"}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self.kept[self.address] = connection
        return answer.status, data
