"""What the tests of records share. Test modules of this folder import `examples` by its name."""

from pathlib import Path

import pytest

from examples import example_records
from kosmos2.records.record import GroundedRecord


@pytest.fixture
def examples(tmp_path: Path) -> list[GroundedRecord]:
    """The shared records; their pictures lie in `tmp_path`, where the paths of records start."""
    return example_records(tmp_path)
