from __future__ import annotations

import subprocess
import sys

from emergencias.settings import PROJECT_ROOT


def test_the_pictures_of_the_profiles_are_what_the_simulator_draws():
    checked = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "docs" / "profile_pictures.py"), "--check"],
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stderr
