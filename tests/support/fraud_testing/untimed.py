"""A pytest plugin for all tests: a property test has no deadline, since no test is timed."""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):  # not every environment has property tests
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
