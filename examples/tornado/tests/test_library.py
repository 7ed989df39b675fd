"""Where the library is searched for, and the errors for a missing or wrong library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS

from httpstream import _ffi
from httpstream.errors import LibraryNotFound

PACKAGE = str(Path(__file__).resolve().parent.parent)


def imported(before: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HTTPSTREAM_LIBRARY", "CARGO_TARGET_DIR")
    }
    program = f"import sys; sys.path.insert(0, {PACKAGE!r})\n{before}\n"
    program += "from httpstream._ffi import library; print(library.path)"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )


def test_the_variable_names_the_library() -> None:
    path = os.path.abspath(_ffi.library.path)
    assert imported(HTTPSTREAM_LIBRARY=path).stdout.strip() == path


def test_the_variable_is_meant(tmp_path: Path) -> None:
    done = imported(HTTPSTREAM_LIBRARY=str(tmp_path / "nothing.so"))
    assert done.returncode != 0
    assert "LibraryNotFound: HTTPSTREAM_LIBRARY is" in done.stderr and "nothing.so" in done.stderr


def test_it_is_looked_for_beside_the_package_first() -> None:
    assert next(_ffi.candidates()) == Path(PACKAGE) / "httpstream" / "libhttpstream.so"


def test_the_loaders_path_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As after installing with capi/install.sh into a prefix that is in LD_LIBRARY_PATH."""
    os.symlink(os.path.abspath(_ffi.library.path), tmp_path / "libhttpstream.so.1")
    done = imported(
        before="import pathlib; pathlib.Path.exists = lambda path: False",
        LD_LIBRARY_PATH=str(tmp_path),
    )
    assert done.stdout.strip() == "libhttpstream.so.1", done.stderr


def test_it_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HTTPSTREAM_LIBRARY", raising=False)
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    monkeypatch.setattr(_ffi, "_file_name", lambda: "libnot_there.so")
    monkeypatch.setattr(_ffi, "_SONAME", "libnot_there.so.1")
    monkeypatch.setattr(_ffi.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(LibraryNotFound) as caught:
        _ffi.load()
    words = str(caught.value)
    for part in (
        "cargo build --release -p httpstream-capi",
        "pip install examples/tornado",
        "set HTTPSTREAM_LIBRARY to the path",
        f"{PACKAGE}/httpstream/libnot_there.so (no such file)",
        f"{sys.prefix}/lib/libnot_there.so (no such file)",
        "libnot_there.so.1 (not known to the system's loader)",
        f"{tmp_path}/release/libnot_there.so (no such file)",
        f"{tmp_path}/debug/libnot_there.so (no such file)",
        "system's linker",
    ):
        assert part in words


def test_the_target_directory_is_cargos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HTTPSTREAM_LIBRARY", raising=False)
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    (tmp_path / "debug").mkdir()
    os.symlink(
        os.path.abspath(_ffi.library.path), tmp_path / "debug" / Path(_ffi.library.path).name
    )
    assert _ffi.load().path == str(tmp_path / "debug" / Path(_ffi.library.path).name)


@pytest.mark.parametrize(
    "source, words",
    [
        (
            "#include <stdint.h>\nuint32_t httpstream_abi_version(void) { return 999; }\n",
            "version 999 of the interface",
        ),
        ("int other;\n", "is not libhttpstream"),
        (
            "#include <stdint.h>\nuint32_t httpstream_abi_version(void) { return 1; }\n",
            "it is older than this package. Build the library of the same checkout",
        ),
    ],
)
def test_another_version_is_refused(tmp_path: Path, source: str, words: str) -> None:
    if shutil.which("cc") is None:
        print("skipped: cc is not installed")
        pytest.skip("cc is not installed")
    (tmp_path / "other.c").write_text(source)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "other.so"), str(tmp_path / "other.c")],
        check=True,
        timeout=WAIT_SECONDS,
    )
    done = imported(HTTPSTREAM_LIBRARY=str(tmp_path / "other.so"))
    assert done.returncode != 0
    assert "LibraryNotFound" in done.stderr and words in done.stderr


def test_the_structs_are_those_of_the_header(tmp_path: Path) -> None:
    """Compares the offset of each member with the C compiler's."""
    header = Path(__file__).resolve().parents[3] / "capi" / "include" / "httpstream.h"
    if shutil.which("cc") is None:
        print("skipped: cc is not installed")
        pytest.skip("cc is not installed")
    lines = [
        '#include "httpstream.h"',
        "#include <stdio.h>",
        "#include <stddef.h>",
        "int main(void) {",
    ]
    expected = []
    structs = {
        "view": _ffi.View,
        "next": _ffi.Next,
        "readback": _ffi.Readback,
        "turned": _ffi.Turned,
        "stats": _ffi.Stats,
    }
    for name, struct in structs.items():
        for member, *_ in struct._fields_:
            lines.append(
                f'printf("{name}.{member} %zu\\n", offsetof(struct httpstream_{name}, {member}));'
            )
            expected.append(f"{name}.{member} {getattr(struct, member).offset}")
        # Structs with a size member may be larger in the library than in this package.
        sized = struct in (_ffi.View, _ffi.Stats)
        lines.append(
            f'printf("{name} %d\\n", sizeof(struct httpstream_{name}) {">=" if sized else "=="} '
            f"{_ffi.ctypes.sizeof(struct)});"
        )
        expected.append(f"{name} 1")
    lines += [f'printf("abi %d\\n", HTTPSTREAM_ABI_VERSION == {_ffi.ABI_VERSION});', "}"]
    expected.append("abi 1")
    (tmp_path / "offsets.c").write_text("\n".join(lines))
    program = tmp_path / "offsets"
    subprocess.run(
        ["cc", "-I", str(header.parent), "-o", str(program), str(tmp_path / "offsets.c")],
        check=True,
        timeout=WAIT_SECONDS,
    )
    printed = subprocess.run(
        [str(program)], check=True, capture_output=True, text=True, timeout=WAIT_SECONDS
    ).stdout
    assert printed.splitlines() == expected
