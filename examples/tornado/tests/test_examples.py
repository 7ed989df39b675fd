"""The examples in README.md and the package's docstring run unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

import pytest
from conftest import WAIT_SECONDS, WebServer

import httpstream

ROOT = Path(__file__).resolve().parent.parent


def shown(text: str) -> List[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


EXAMPLES = [
    *shown((ROOT / "README.md").read_text(encoding="utf-8")),
    *shown(httpstream.__doc__ or ""),
]


def test_there_are_examples() -> None:
    assert sum("http_stream.start()" in example for example in EXAMPLES) >= 2
    assert sum("await" in example for example in EXAMPLES) >= 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_as_it_stands(web: WebServer, example: str) -> None:
    """Every host name resolves to the test's server. A program that runs forever, as the example
    of 2013 does, is terminated after it has printed a line.
    """
    before = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport httpstream\n"
    names = {name: f"127.0.0.1:{web.port}" for name in ("www.linuxzen.com", "bot.example")}
    before += f"httpstream.HTTPStream.configure(resolve_to={names!r})\n"
    program = subprocess.Popen(
        [sys.executable, "-u", "-c", before + example],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    bound = threading.Timer(WAIT_SECONDS, program.kill)
    bound.start()
    try:
        assert program.stdout is not None and program.stderr is not None
        line = program.stdout.readline()
        program.terminate()
        errors = program.stderr.read()
    finally:
        bound.cancel()
        program.kill()
        program.wait()
    assert line.startswith("b'/"), (line, errors)
    assert "Traceback" not in errors
