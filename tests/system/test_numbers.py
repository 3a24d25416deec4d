"""The numbers that sdisup promises, each the median of ten: `tests/measure.py` exits with 1 if one is exceeded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_number_is_beyond_its_limit() -> None:
    measure = Path(__file__).parent.parent / "measure.py"
    result = subprocess.run([sys.executable, measure, "10"], capture_output=True, text=True, timeout=900, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
