"""The model server over a small real package: short way, stock routes, refusals, readiness."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from fraud_contracts import model_package
from fraud_serving.served_model import PackageError, ServedModel
from fraud_testing import packages, serving

pytestmark = pytest.mark.integration
NAMES = [f"f{i}" for i in range(6)]
ROWS = [[1.0, 2.0, None, 4.0, 5.0, 6.0], [200.0, 2.0, 3.0, 4.0, 5.0, 6.0]]


def ask(url: str, body: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def tensor(rows: list[list[float | None]], **changes: Any) -> dict[str, Any]:
    flat = [value for row in rows for value in row]
    return {
        "inputs": [{"name": "features", "shape": [len(rows), 6], "datatype": "FP32", "data": flat, **changes}]
    }


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    packages.make(folder, NAMES, "a" * 64)
    return folder


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Process]:
    with serving.predictor(package, "cards-a", tmp_path_factory.mktemp("predictor")) as process:
        yield process


def test_probabilities_are_the_native_models(server: serving.Process, package: Path) -> None:
    """What is served agrees with LightGBM's own prediction, nulls included; the digest is stated."""
    status, answer = ask(server.url + "/v2/models/cards-a/infer", tensor(ROWS))
    assert status == 200
    outputs = {output["name"]: output for output in answer["outputs"]}
    native = lightgbm.Booster(model_file=str(package / "model.lgb.txt")).predict(
        np.array(ROWS, dtype=np.float64)
    )
    assert np.allclose(outputs["probability"]["data"], native, atol=1e-5)
    assert outputs["reasons"]["shape"] == [2, 5]
    assert outputs["reasons"]["data"][5] == 0  # the second row's first value is what makes it fraud
    assert answer["parameters"]["digest"] == ServedModel(package).digest


def test_only_what_is_asked_for_is_computed(server: serving.Process) -> None:
    """A request may ask for the probability alone, as shadow scoring does."""
    body = {**tensor(ROWS), "outputs": [{"name": "probability"}], "id": "7"}
    status, answer = ask(server.url + "/v2/models/cards-a/infer", body)
    assert (status, [output["name"] for output in answer["outputs"]], answer["id"]) == (
        200,
        ["probability"],
        "7",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        {"inputs": []},
        tensor(ROWS, shape=[2, 5]),
        tensor(ROWS, shape=[3, 6]),
        tensor(ROWS, datatype="BYTES"),
        tensor(ROWS, name="x"),
        tensor(ROWS, data=["a"] * 12),
    ],
)
def test_a_malformed_request_is_refused(server: serving.Process, body: Any) -> None:
    """Wrong shapes never reach the model: 400 with a text."""
    status, answer = ask(server.url + "/v2/models/cards-a/infer", body)
    assert status == 400
    assert answer["error"]


def test_stock_routes_serve_the_same_model(server: serving.Process) -> None:
    """V1 predict and V2 metadata go through KServe itself and the same scorer."""
    _, short = ask(server.url + "/v2/models/cards-a/infer", tensor(ROWS))
    status, answer = ask(
        server.url + "/v1/models/cards-a:predict", {"instances": [[1, 2, 3, 4, 5, 6], ROWS[1]]}
    )
    assert status == 200
    assert answer["predictions"][1] == pytest.approx(short["outputs"][0]["data"][1])
    with urllib.request.urlopen(server.url + "/v2/models/cards-a/ready", timeout=5) as ready:
        assert json.loads(ready.read())["ready"] is True
    with urllib.request.urlopen(server.url + "/metrics", timeout=5) as scraped:
        assert "fraud_predictor_seconds_bucket" in scraped.read().decode()


def test_binary_tensors_take_the_stock_route(server: serving.Process) -> None:
    """Little-endian float32 after the JSON head gives the probabilities that JSON gives."""
    _, short = ask(server.url + "/v2/models/cards-a/infer", tensor(ROWS))
    raw = np.array(ROWS, dtype=np.float32).tobytes()
    parameters = {"binary_data_size": len(raw)}
    inputs = [{"name": "features", "shape": [2, 6], "datatype": "FP32", "parameters": parameters}]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Content-Type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    request = urllib.request.Request(server.url + "/v2/models/cards-a/infer", head + raw, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        outputs = {output["name"]: output["data"] for output in json.loads(answer.read())["outputs"]}
    assert outputs["probability"] == pytest.approx(short["outputs"][0]["data"])


def test_one_row_has_the_reasons_that_it_has_in_a_batch(package: Path) -> None:
    """The shorter way for single rows is the same function."""
    scorer = ServedModel(package)
    rows = np.random.default_rng(3).lognormal(2, 2, (50, 6)).astype(np.float32)
    batch = scorer.score(rows)
    for i in range(len(rows)):
        one = scorer.score(rows[i : i + 1])
        assert one.reasons is not None
        assert batch.reasons is not None
        assert (one.reasons[0] == batch.reasons[i]).all()
        assert np.allclose(one.contributions[0], batch.contributions[i])


def test_a_changed_file_is_refused(package: Path, tmp_path: Path) -> None:
    """A package whose file was changed after it was made never loads."""
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    (copy / model_package.SERVING).write_bytes(b"{}")
    with pytest.raises(PackageError, match="changed"):
        ServedModel(copy)
