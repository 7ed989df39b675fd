"""The benchmark runs. With so few requests, its results mean nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import WAIT_SECONDS

BENCH = Path(__file__).resolve().parent.parent / "bench.py"


def test_the_bench_prints_its_table() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "--rounds", "2", "--requests", "500"],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")
    ]
    assert rows == [
        "client",
        "httpstream, readback",
        "httpstream, await fetch",
        "Tornado's curl client",
        "Tornado's simple client",
    ]
    assert "of the curl client's CPU time" in done.stdout
