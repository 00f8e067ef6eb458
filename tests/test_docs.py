"""Pages that are made from the code are what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_reference_of_the_yaml_is_that_of_the_records():
    command = [sys.executable, str(DOCS / "make_config.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
