"""The package that pip installs works on its own, in any place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from conftest import WAIT_SECONDS, WebServer

from httpstream import _ffi

ROOT = Path(__file__).resolve().parent.parent


def clean_environment() -> "dict[str, str]":
    unwanted = ("HTTPSTREAM_LIBRARY", "CARGO_TARGET_DIR", "PYTHONPATH", "LD_LIBRARY_PATH")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def call(*command: Any, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Runs a Python whose environment does not lead to a library."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**clean_environment(), **options.pop("env", {})},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        **options,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the checkout with nothing built, so that pip does not change the original."""
    there = tmp_path / "repository" / "examples" / "tornado"
    unwanted = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*", "*.so")
    shutil.copytree(ROOT, there, ignore=unwanted)
    return tmp_path / "repository"


def install(repository: Path, to: Path) -> List[str]:
    """Installs the package into `to`; returns the file names of the wheels."""
    wheels = to.parent / "wheels"
    pip = ["-m", "pip", "--disable-pip-version-check"]
    made = call(
        *pip,
        *("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels),
        repository / "examples" / "tornado",
    )
    assert made.returncode == 0, made.stdout + made.stderr
    files = sorted(wheels.iterdir())
    done = call(*pip, *("install", "--no-deps", "--no-index", "--target", to), *files)
    assert done.returncode == 0, done.stdout + done.stderr
    return [file.name for file in files]


FETCH = """
import asyncio, sys
from httpstream import HTTPStream, _ffi

async def main():
    stream = HTTPStream.instance()
    print(_ffi.library.path, (await stream.fetch(sys.argv[1])).body.decode())
    stream.close()

asyncio.run(main())
"""


def test_the_package_brings_the_library_that_was_built(
    repository: Path, tmp_path: Path, web: WebServer
) -> None:
    built = repository / "target" / "release"
    built.mkdir(parents=True)
    shutil.copyfile(_ffi.library.path, built / "libhttpstream.so")
    to = tmp_path / "site"
    (wheel,) = install(repository, to)
    assert wheel.startswith("httpstream_tornado-") and "-py3-none-" in wheel
    assert not wheel.endswith("-any.whl")
    library = to / "httpstream" / "libhttpstream.so"
    if shutil.which("strip"):
        assert library.stat().st_size < (built / "libhttpstream.so").stat().st_size / 2
    # No other library can be found.
    shutil.rmtree(repository)
    done = call("-c", FETCH, f"{web.url}/page", env={"PYTHONPATH": str(to)}, cwd=tmp_path)
    assert done.stdout.split() == [str(library), "/page"], done.stderr


def test_a_package_without_a_library_says_what_to_do(repository: Path, tmp_path: Path) -> None:
    to = tmp_path / "site"
    (wheel,) = install(repository, to)
    assert wheel.endswith("-py3-none-any.whl")
    hide = "import ctypes\ndef load(name): raise OSError(name)\nctypes.PyDLL = load\n"
    done = call("-c", hide + FETCH, "", env={"PYTHONPATH": str(to)}, cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert f"{to}/httpstream/libhttpstream.so (no such file)" in done.stderr
    assert "set HTTPSTREAM_LIBRARY to the path of libhttpstream.so" in last, done.stderr
