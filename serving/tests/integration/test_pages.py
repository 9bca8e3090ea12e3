"""The commands of the pages that need nothing but the environments."""

from __future__ import annotations

import pytest

from fraud_testing import pages

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("block", pages.blocks("here"), ids=lambda block: block.page)
def test_a_command_that_needs_no_cluster_runs(block: pages.Block) -> None:
    """A block runs as it stands, from the root of a clone."""
    pages.run([block], {}, 120)
