"""Baseline: KServe's own server of a LightGBM model, as its lgbserver does it: V2 in, a frame, ``Booster.predict``, V2 out.

It gives no reasons. Its logs are quieted, since a line or three for each request would cost it more than the model.

    python -m fraud_bench.stock_server MODEL_FILE PORT
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import kserve
import lightgbm
from kserve.utils.utils import get_predict_input, get_predict_response


class Stock(kserve.Model):  # type: ignore[misc]  # kserve says nothing of its types
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path

    def load(self) -> bool:
        self._booster = lightgbm.Booster(model_file=self._path, params={"num_threads": 1})
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        rows = get_predict_input(payload)
        return get_predict_response(payload, self._booster.predict(rows, num_threads=1), self.name)


if __name__ == "__main__":
    for name in ("kserve", "kserve.trace", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    model = Stock("m", sys.argv[1])
    model.load()
    kserve.ModelServer(
        http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False
    ).start([model])
