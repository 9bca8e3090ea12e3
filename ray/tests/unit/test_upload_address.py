"""A file of history that comes from an address, by a real server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from fraud_ray.upload import main
from fraud_testing import detectors
from fraud_testing.http_server import QuietHandler, serving

CSV = b"id,time,amount,card,shop,is_fraud\na1,1,1.00,4000,corner,0\n"


class Server(QuietHandler):
    """``/whole`` is the file; ``/short`` says more bytes than come, ``/chunked`` breaks off within a chunk."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(CSV) + (100 if self.path == "/short" else 0)))
        self.end_headers()
        self.wfile.write(b"1000\r\n" + CSV if self.path == "/chunked" else CSV)
        self.close_connection = True


@pytest.fixture
def address() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Server)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def fetch(folder: Path, url: str) -> int:
    """How an upload into the storage ``folder / "bank"`` ends."""
    spec = {**detectors.SPEC, "model": {"train": {"history": {"path": "history/"}}}}
    config = detectors.document(spec, storage_uri=f"file://{folder}/bank")
    return main(["a.csv", url], {"FRAUD_CONFIG": str(detectors.write(config, folder))})


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_whole_file_is_fetched(tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It lies where training looks for it, and the command that trains at once is printed."""
    assert fetch(tmp_path, f"{address}/whole") == 0
    assert (tmp_path / "bank/history/a.csv").read_bytes() == CSV
    assert "annotate --overwrite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "reason"),
    [("short", f"broke off after {len(CSV)} of {len(CSV) + 100} bytes"), ("chunked", "IncompleteRead")],
)
def test_a_file_that_breaks_off_on_the_way_is_refused(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str], path: str, reason: str
) -> None:
    """Though what came looks whole: its server had said more. Nothing of it stays, and the line says how far it came."""
    assert fetch(tmp_path, f"{address}/{path}") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("not uploaded: ") and reason in printed
    assert files(tmp_path / "bank") == []
