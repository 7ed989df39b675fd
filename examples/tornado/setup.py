"""Copies the library that cargo has built into the package, so that the installed package is
complete.

The other settings are in pyproject.toml. If no library was built, the package is installed without
one, and searches for it when it is imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional, Tuple

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

FILE_NAME = "libhttpstream.dylib" if sys.platform == "darwin" else "libhttpstream.so"


def built_library() -> Optional[Path]:
    """Returns $HTTPSTREAM_LIBRARY, or the output of `cargo build --release -p httpstream-capi`."""
    named = os.environ.get("HTTPSTREAM_LIBRARY")
    if named:
        return Path(named)
    repository = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or repository / "target")
    library = target / "release" / FILE_NAME
    return library if library.exists() else None


class Build(build_py):
    def run(self) -> None:
        super().run()
        # An editable install leaves the package in the checkout, where it finds the library.
        if getattr(self, "editable_mode", False):
            return
        library = built_library()
        if library is None:
            print("httpstream: no library was built, so none is installed with the package")
            return
        copy = Path(self.build_lib) / "httpstream" / FILE_NAME
        shutil.copyfile(library, copy)
        # Five sixths of the file are debug information.
        if sys.platform != "darwin" and shutil.which("strip"):
            subprocess.run(["strip", "--strip-debug", str(copy)], check=True)


class Wheel(bdist_wheel):
    def get_tag(self) -> Tuple[str, str, str]:
        tag = super().get_tag()
        # The wheel works with any Python, but not on any machine.
        return tag if self.root_is_pure else ("py3", "none", tag[2])


class Package(Distribution):
    def has_ext_modules(self) -> bool:
        return built_library() is not None


setup(distclass=Package, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
