"""The starter's own process: run as `python -m lab.starter_process FD`.

Imports the whole of swanmesh once, then forks a child for each request that comes on the socket FD. Each
child is a process of its own, in its own namespace, and runs the very entry point that the `swanmesh` command
runs. In user-mode Linux a controller that starts so accepts requests after 0.2 s instead of 1 s.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import socket
import sys

from lab.namespaces import set_namespace
from lab.starter import MESSAGE


def _preload() -> None:
    """Imports what a controller or a command may need, so that children only share it."""
    package = importlib.import_module("swanmesh")
    for module in pkgutil.walk_packages(package.__path__, "swanmesh."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # or a child's collector would touch, and so copy, every page of ours


def _serve(requests: socket.socket) -> list[str] | None:
    """Forks for each request. Returns the arguments in a child, None when the client has gone."""
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(requests, MESSAGE, 3)
        except ConnectionResetError:  # the client has gone without reading our last answer
            return None
        if not message:
            return None
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
                os._exit(0)
            for fd in (reader, writer, requests.detach()):
                os.close(fd)
            return _become(json.loads(message), fds)
        os.waitpid(middle, 0)
        requests.send(os.read(reader, 32))  # only now that the child is the client's
        os.close(reader)
        os.close(writer)
        for fd in fds:
            os.close(fd)


def _become(request: dict[str, object], fds: list[int]) -> list[str]:
    stdout, stderr, network = fds
    os.setsid()
    set_namespace(network)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for fd in fds:
        os.close(fd)
    arguments, environment, cwd = request["arguments"], request["environment"], request["cwd"]
    assert isinstance(arguments, list) and isinstance(environment, dict) and isinstance(cwd, str)
    os.environ.update(environment)
    os.chdir(cwd)
    return arguments


def main() -> None:
    """The starter's process."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(requests.fileno(), False)
    _preload()
    requests.send(b"ready")
    arguments = _serve(requests)
    if arguments is None:
        return
    sys.argv = ["swanmesh", *arguments]
    status: object = 0
    try:
        status = importlib.import_module("swanmesh.cli.main").entry()
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    # Not sys.exit: taking all modules down would touch, and so copy, every page shared with the starter.
    os._exit(_status(status))


def _status(code: object) -> int:
    """The exit status that sys.exit(code) gives."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    main()
