"""The model server: KServe's ModelServer with a short way for inference.

``python -m fraud_serving.predictor --model_name=NAME --model_dir=/mnt/models``

The stock way costs about forty times the model (parsing into tensor objects, logging, one FastAPI dependency chain per
request). So ``POST /v2/models/{name}/infer`` in JSON is answered before the framework sees it; everything else (V1, binary tensors,
metadata, readiness) takes the stock routes and the same scorer. workers=1: KServe's own workers share neither metrics nor
readiness, so load is spread by Pods. Readiness is ``/v2/models/{name}/ready``; ``/v2/health/ready`` is true without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import kserve
import numpy as np
import orjson
import uvloop
from kserve import InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.model_server import app
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from fraud_contracts import log, metrics
from fraud_process.instruments import Instruments
from fraud_serving.served_model import ModelOutput, ServedModel

MAX_BODY: Final = 8 * 2**20
MAX_ROWS: Final = 8192
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Refused(Exception):
    """A request that can't be scored; its text is the answer."""


def read_rows(body: bytes, width: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The tensor ``features`` as float32 rows, null for NaN; _Refused names the fault."""
    try:
        request = orjson.loads(body)
        inputs = request["inputs"]
        if len(inputs) != 1 or inputs[0]["name"] != "features":
            raise _Refused("give exactly one input, named features")
        shape = inputs[0]["shape"]
        if inputs[0]["datatype"] not in ("FP32", "FP64"):
            raise _Refused("features must be FP32")
        if len(shape) != 2 or shape[1] != width or not 0 < shape[0] <= MAX_ROWS:
            raise _Refused(f"features must have the shape [n, {width}] with n up to {MAX_ROWS}")
        rows = np.array(inputs[0]["data"], dtype=np.float32)
        if rows.size != shape[0] * width:
            raise _Refused(f"features holds {rows.size} values, its shape says {shape[0] * width}")
        return rows.reshape(shape[0], width), request
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _Refused(f"no V2 inference request: {type(error).__name__}") from error


def outputs(scored: ModelOutput) -> list[tuple[str, str, NDArray[Any]]]:
    tensors: list[tuple[str, str, NDArray[Any]]] = [("probability", "FP32", scored.probability)]
    if scored.reasons is not None and scored.contributions is not None:
        tensors += [("reasons", "INT32", scored.reasons), ("contributions", "FP32", scored.contributions)]
    return tensors


class FraudModel(kserve.Model):  # type: ignore[misc]  # kserve is untyped here
    """The stock routes' model; ``scorer`` is shared with the short way."""

    def __init__(self, name: str, folder: Path, instruments: Instruments) -> None:
        super().__init__(name)
        self._folder, self.instruments = folder, instruments
        self.scorer: ServedModel | None = None

    def load(self) -> bool:
        self.scorer = ServedModel(self._folder)
        self.ready = True
        return True

    @property
    def parameters(self) -> dict[str, str]:
        assert self.scorer is not None
        return {"model_version": self.scorer.version, "digest": self.scorer.digest}

    def score(self, rows: NDArray[np.float32], explain: bool = True) -> ModelOutput:
        """Scores and measures; both ways end here."""
        assert self.scorer is not None
        start = time.perf_counter()
        scored = self.scorer.score(rows, explain)
        version = self.scorer.version
        self.instruments(metrics.PREDICT_SECONDS, model_version=version).observe(time.perf_counter() - start)
        self.instruments(metrics.PREDICT_ROWS, model_version=version).inc(len(rows))
        return scored

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        assert self.scorer is not None
        if isinstance(payload, InferRequest):
            rows = np.asarray(payload.inputs[0].as_numpy(), dtype=np.float32)
        else:
            rows = np.array(payload.get("instances", ()), dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.scorer.width or not 0 < len(rows) <= MAX_ROWS:
            raise InvalidInput(
                f"features must have the shape [n, {self.scorer.width}] with n up to {MAX_ROWS}"
            )
        scored = self.score(rows)
        if not isinstance(payload, InferRequest):
            return {"predictions": scored.probability.tolist()}
        tensors = []
        for name, kind, values in outputs(scored):
            tensor = InferOutput(name, list(values.shape), kind)
            tensor.set_data_from_numpy(values, binary_data=False)
            tensors.append(tensor)
        return InferResponse(payload.id or uuid.uuid4().hex, self.name, tensors, parameters=self.parameters)


class InferenceFastPath:
    """ASGI in front of KServe's application: answers JSON inference itself, passes everything else on."""

    def __init__(self, model: FraudModel, stock: Any) -> None:
        self._model, self._stock = model, stock
        self._path = f"/v2/models/{model.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._stock(scope, receive, send)
            return
        if any(name == b"inference-header-content-length" for name, _ in scope["headers"]):
            await self._stock(scope, receive, send)  # binary tensors
            return
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size += len(part)
            if size <= MAX_BODY:
                parts.append(part)
            if not message.get("more_body"):
                break
        status, body = (
            self._answer(b"".join(parts))
            if size <= MAX_BODY
            else self._error(413, "the request is too large")
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        model = self._model
        if model.scorer is None or not model.ready:
            return self._error(503, f"the model {model.name} is not ready")
        try:
            rows, request = read_rows(body, model.scorer.width)
            wanted = {o["name"] for o in request["outputs"]} if request.get("outputs") else None
            scored = model.score(rows, explain=wanted is None or wanted != {"probability"})
        except _Refused as refused:
            return self._error(400, str(refused))
        except Exception:  # one bad request must not end the server; the trace is logged, the answer says 500
            logging.getLogger(__name__).exception("scoring failed")
            return self._error(500, "scoring failed")
        tensors = [
            {"name": name, "datatype": kind, "shape": values.shape, "data": values.ravel()}
            for name, kind, values in outputs(scored)
            if wanted is None or name in wanted
        ]
        answer = {
            "model_name": model.name,
            "model_version": model.scorer.version,
            "parameters": model.parameters,
            "outputs": tensors,
        }
        if "id" in request:
            answer["id"] = request["id"]
        return 200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _error(self, status: int, text: str) -> tuple[int, bytes]:
        self._model.instruments(metrics.PREDICT_ERRORS, reason=str(status)).inc()
        return status, orjson.dumps({"error": text})


def main() -> None:
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser], conflict_handler="resolve")
    parser.add_argument("--model_name", required=True, help="Name in the V2 paths: the InferenceService's.")
    parser.add_argument("--model_dir", default="/mnt/models", help="Folder with the model package.")
    args, _ = parser.parse_known_args()
    log.setup()
    # KServe logs several lines per request at INFO; that costs as much as the request.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    model = FraudModel(args.model_name, Path(args.model_dir), Instruments(REGISTRY))
    model.load()
    assert model.scorer is not None
    loaded = {"model": args.model_name, **model.parameters, "features": model.scorer.width}
    logging.getLogger(__name__).info("model loaded", extra={"data": loaded})
    stock = app.build_middleware_stack
    app.build_middleware_stack = lambda: InferenceFastPath(model, stock())
    gc.collect()
    gc.freeze()
    # KServe asks for the current loop, then makes another with asyncio.run: both must be uvloop's.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    kserve.ModelServer(workers=1, enable_grpc=False, enable_latency_logging=False).start([model])


if __name__ == "__main__":
    main()
