"""What the benchmark of instructions runs does run."""

from __future__ import annotations

import pytest

import instructions


@pytest.mark.parametrize("name", instructions.PATHS)
def test_a_path_is_run_as_often_as_it_should(name: str) -> None:
    instructions.PATHS[name](2 * instructions.BATCH)
