"""Where ``fraud_ray.evaluate`` writes: nothing but its own is ever deleted or replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_contracts import model_package
from fraud_contracts.training_end import ExitCode
from fraud_ray import evaluate, plots

CR = """
metadata: {name: cards}
spec:
  event: {id: {field: id}, time: {field: time}, amount: {field: amount}, sensitive: [card]}
  entities: [{name: customer, field: card}]
  model: {train: {}}
"""


def inputs(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True)
    (folder / "fd.yaml").write_text(CR)
    (folder / "h.csv").write_text("id,time,amount,card,is_fraud\na,1780000000000,1,4000,0\n")
    return folder / "fd.yaml", folder / "h.csv"


def run(cr: Path, history: Path, out: Path) -> int:
    return evaluate.main(["--cr", str(cr), "--history", str(history), "--out", str(out)])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_the_inputs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --out where the history and the resource lie, both stay, and so does all else."""
    cr, history = inputs(tmp_path / "del")
    (tmp_path / "del" / "package").mkdir()
    (tmp_path / "del" / "package" / "thesis.txt").write_text("years of work")
    before = everything(tmp_path)
    assert run(cr, history, tmp_path / "del") == ExitCode.REASON_GIVEN
    assert everything(tmp_path) == before
    assert "fd.yaml, h.csv, package/thesis.txt" in capsys.readouterr().out


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--out with a file's name is refused by name, and the file stays."""
    cr, history = inputs(tmp_path / "in")
    (tmp_path / "out").write_text("mine")
    assert run(cr, history, tmp_path / "out") == ExitCode.REASON_GIVEN
    assert (tmp_path / "out").read_text() == "mine"
    assert "is no folder" in capsys.readouterr().out


def test_a_link_is_not_written_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link below --out leads to what this command didn't write."""
    cr, history = inputs(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "package").symlink_to(tmp_path / "in")
    assert run(cr, history, tmp_path / "out") == ExitCode.REASON_GIVEN
    assert "holds package" in capsys.readouterr().out


def link_of_another(package: Path) -> None:
    (package.parent.parent / "precious").write_text("mine")
    os.link(package.parent.parent / "precious", package / model_package.CARD)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(link_of_another, id="a hard link"),
        pytest.param(lambda package: (package / model_package.CARD).mkdir(), id="a folder"),
        pytest.param(lambda package: os.mkfifo(package / model_package.CARD), id="a pipe"),
    ],
)
def test_an_own_name_is_own_only_as_a_file(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that has another name elsewhere would change there, too; whatever else has the name, nobody wrote it here."""
    cr, history = inputs(tmp_path / "in")
    (tmp_path / "out" / "package").mkdir(parents=True)
    make(tmp_path / "out" / "package")
    before = everything(tmp_path)
    assert run(cr, history, tmp_path / "out") == ExitCode.REASON_GIVEN
    assert f"OutRefused: {tmp_path}/out holds package/{model_package.CARD}" in capsys.readouterr().out
    assert everything(tmp_path) == before


def test_a_folder_below_a_file_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can't be made; the file in the way is named."""
    cr, history = inputs(tmp_path / "in")
    (tmp_path / "mine").write_text("mine")
    assert run(cr, history, tmp_path / "mine" / "new" / "out") == ExitCode.REASON_GIVEN
    assert f"OutRefused: {tmp_path}/mine is no folder" in capsys.readouterr().out


def test_what_an_earlier_run_wrote_is_replaced(tmp_path: Path) -> None:
    """Its files by name, and nothing else is called its own."""
    (tmp_path / "package").mkdir()
    (tmp_path / "plots").mkdir()
    for name in model_package.FILES:
        (tmp_path / "package" / name).write_text("old")
    for name in plots.FILES:
        (tmp_path / "plots" / name).write_text("old")
    assert evaluate.foreign_files(tmp_path) == []
    (tmp_path / "plots" / "notes.svg").write_text("mine")
    assert evaluate.foreign_files(tmp_path) == ["plots/notes.svg"]


def test_a_missing_history_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rather than a folder of this command's own that holds none."""
    cr, _ = inputs(tmp_path / "in")
    assert run(cr, tmp_path / "none.csv", tmp_path / "out") == ExitCode.REASON_GIVEN
    assert "none.csv" in capsys.readouterr().out
