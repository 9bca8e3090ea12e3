"""Run in every environment: no project folder is taken for a module of the same name."""

from __future__ import annotations

import importlib.util
import operator
import sysconfig
from pathlib import Path


def test_operator_is_the_standard_librarys() -> None:
    """The folder `operator/` never hides the module that half of Python imports."""
    assert Path(operator.__file__).parent == Path(sysconfig.get_path("stdlib"))


def test_ray_is_the_engine_or_absent() -> None:
    """A folder without `__init__.py` would import as an empty package, and every check for Ray would lie."""
    spec = importlib.util.find_spec("ray")
    assert spec is None or "site-packages" in str(spec.origin)
