"""Runs Python in another process: as another user, or in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
REPOSITORY = Path(__file__).parents[3]


_BECOME = """
import os, swanmesh.config.edit, swanmesh.config.entry_files, tests.unit.config.editing
os.setgroups([]); os.setgid({user}); os.setuid({user})
"""
"""Imports first: the interpreter itself may lie where that user cannot read."""


def run_python(code: str, *arguments: str | Path, before: str = "", user: int | None = None) -> str:
    """Standard output of `code`. `before` is shell that runs first, as root of user and mount namespaces of
    its own. `user` counts for root only: for anybody else, a permission test tests that user."""
    code = textwrap.dedent(code)
    if user is not None and os.geteuid() == 0:
        code = _BECOME.format(user=user) + code
    argv: Sequence[str] = [sys.executable, "-c", code, *map(str, arguments)]
    if before:
        inside = ["sh", "-ec", f'{before}\nexec "$@"', "sh", *argv]
        argv = ["unshare", "--user", "--map-root-user", "--mount", *inside]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter: pytest's own are for the user who runs it."""
    path = Path(tempfile.mkdtemp(prefix="swanmesh-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
