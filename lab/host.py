"""One host of the lab: a namespace, a folder, a charon and a controller."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import vici

from lab import kernel, starving
from lab.captures import Capture
from lab.files import HostFiles
from lab.links import Link
from lab.namespaces import Namespace
from lab.pings import PingResult, PingStream
from lab.starter import ForkedProcess, Starter
from lab.starving import Diet
from lab.waiting import wait_until


class CommandFailed(AssertionError):
    """A command ended with a status that its caller did not expect."""


@functools.cache
def shared_starter() -> Starter:
    """The starter that all hosts of this process share, started when it is first needed."""
    return Starter()


def plain(value: Any) -> Any:
    """A VICI value as text, lists and dicts."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


@dataclass(eq=False, kw_only=True, repr=False)
class Host(HostFiles):
    """A machine of the lab's mesh. Made by `mesh()`."""

    namespace: Namespace
    link: Link
    switch: Namespace
    port: str
    """The switch's end of its cable."""
    _charon: subprocess.Popen[bytes] | None = None
    _controller: ForkedProcess | None = None
    _streams: list[Capture | PingStream] = field(default_factory=list)
    _diet: Diet | None = None
    """Holds its processes back while it is starved."""

    def __repr__(self) -> str:
        return f"<{self.short} {' '.join(self.addresses)}>"

    # --- commands

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[Any]:
        """subprocess.Popen inside the host's namespace, with its files in the environment."""
        options.setdefault("env", os.environ | self.environment)
        with self.namespace.entered():
            process = subprocess.Popen(argv, **options)
        self._started(process.pid)
        return process

    def exec(
        self, *argv: str, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and returns its text. Raises CommandFailed unless it ends with 0."""
        process = self.popen(
            *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return _checked(self.short, subprocess.CompletedProcess(argv, process.returncode, out, err), check)

    def swanmesh(
        self, *argv: str, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of swanmesh with this host's configuration.

        Forked by the starter, unless there is a `stdin` to give.
        """
        arguments = ["--config", str(self.config), *argv]
        if stdin:
            command = (sys.executable, "-m", "swanmesh", *arguments)
            return self.exec(*command, check=check, timeout=timeout, stdin=stdin)
        with (self.folder / ".out").open("w+") as out, (self.folder / ".err").open("w+") as err:
            process = self._fork(arguments, out, err)
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(process.args, status, out.read(), err.read())
        return _checked(self.short, done, check)

    def _fork(self, arguments: Sequence[str], out: Any, err: Any) -> ForkedProcess:
        process = shared_starter().start(
            arguments, namespace=self.namespace, stdout=out, stderr=err, cwd=self.folder
        )
        self._started(process.pid)
        return process

    # --- charon

    def launch_charon(self) -> None:
        """Starts charon and does not wait for it."""
        assert self._charon is None, f"{self.short}: charon runs already"
        with (self.folder / "charon.out").open("ab") as output:
            self._charon = self.popen(
                _charon_program(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the terminal is for the test, not for it
            )

    def await_charon(self, timeout: float = 60) -> None:
        """Waits until charon answers."""
        wait_until(self._charon_answers, timeout, f"charon of {self.short} answers")

    def start_charon(self) -> None:
        """Starts charon and waits until it answers."""
        self.launch_charon()
        self.await_charon()

    def kill_charon(self, number: int = signal.SIGKILL) -> None:
        """Ends charon with a signal and waits for its end. Its kernel state stays after SIGKILL."""
        assert self._charon is not None, f"{self.short}: charon does not run"
        self._charon.send_signal(number)
        self._charon.wait(timeout=30)
        self._charon = None

    def stop_charon(self) -> None:
        """Ends charon as systemd does."""
        self.kill_charon(signal.SIGTERM)

    @property
    def swanmesh_pid(self) -> int:
        assert self._controller is not None, f"{self.short}: swanmesh does not run"
        return self._controller.pid

    @property
    def charon_pid(self) -> int:
        assert self._charon is not None, f"{self.short}: charon does not run"
        return self._charon.pid

    def _charon_answers(self) -> bool:
        if self._charon is not None and self._charon.poll() is not None:
            said = (self.folder / "charon.out").read_text(errors="replace")[-500:]
            raise RuntimeError(f"charon of {self.short} ended with status {self._charon.returncode}: {said}")
        with self.vici() as session:
            return bool(session.version())

    @contextlib.contextmanager
    def vici(self) -> Any:
        """A VICI session with this host's charon, closed at the end."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.vici_socket))
            yield vici.Session(connection)

    def sas(self) -> list[dict[str, Any]]:
        """What list-sas says, one dict an IKE_SA, all values text; `name` is the connection's."""
        with self.vici() as session:
            return [{"name": name, **plain(sa)} for entry in session.list_sas() for name, sa in entry.items()]

    def connections(self) -> dict[str, Any]:
        """What list-conns says, by connection."""
        with self.vici() as session:
            return {name: plain(conn) for entry in session.list_conns() for name, conn in entry.items()}

    # --- controller

    def launch_swanmesh(self) -> None:
        """Starts `swanmesh run` and does not wait for it."""
        assert self._controller is None, f"{self.short}: swanmesh runs already"
        with self.swanmesh_log.open("a") as log:
            self._controller = self._fork(["--config", str(self.config), "run"], log, log)

    def await_swanmesh(self, timeout: float = 60) -> None:
        """Waits until the control socket accepts."""
        wait_until(self._controller_accepts, timeout, f"swanmesh of {self.short} accepts requests")

    def start_swanmesh(self) -> None:
        """Starts `swanmesh run` and waits until its control socket accepts."""
        self.launch_swanmesh()
        self.await_swanmesh()

    def kill_swanmesh(self, number: int = signal.SIGKILL) -> int:
        """Ends the controller with a signal, waits for its end, and returns its status."""
        assert self._controller is not None, f"{self.short}: swanmesh does not run"
        self._controller.send_signal(number)
        status = self._controller.wait(timeout=30)
        self._controller = None
        return status

    def _controller_accepts(self) -> bool:
        if self._controller is not None and (status := self._controller.poll()) is not None:
            said = self.swanmesh_log.read_text(errors="replace")[-1500:]
            raise RuntimeError(f"swanmesh of {self.short} ended with status {status}: {said}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(self.control_socket))
        return True

    @property
    def alive(self) -> bool:
        """Whether charon and the controller were started and have not ended."""
        return all(
            process is not None and process.poll() is None for process in (self._charon, self._controller)
        )

    # --- kernel and cable

    def xfrm_states(self) -> list[kernel.XfrmState]:
        """The kernel's ESP states, both directions."""
        return kernel.xfrm_states(self.namespace)

    def spis(self) -> frozenset[tuple[str, str, str]]:
        """Source, destination and SPI of every ESP state of the kernel's."""
        return frozenset((state.source, state.destination, state.spi) for state in self.xfrm_states())

    def ping(self, other: Host | str, count: int = 3, interval: float = 0.05) -> PingResult:
        """Sends `count` pings to a host's first address, or to an address, and waits for the answers."""
        address = other if isinstance(other, str) else other.addresses[0]
        argv = ("ping", "-n", "-q", "-c", str(count), "-i", f"{interval:g}", "-W", "1", address)
        done = self.exec(*argv, check=False, timeout=30 + count * (interval + 0.1))
        for line in done.stdout.splitlines():
            words = line.split()
            if words[1:3] == ["packets", "transmitted,"]:
                return PingResult(int(words[0]), int(words[3]))
        raise CommandFailed(f"{self.short}: {' '.join(argv)}: {done.stdout}{done.stderr}")

    def ping_stream(self, address: str, *, interval: float = 0.01) -> PingStream:
        """Pings an address until the returned stream is stopped."""
        log = self.folder / f"ping-{len(self._streams)}.log"
        stream = PingStream(self.namespace, address, log, interval=interval)
        self._streams.append(stream)
        return stream

    def capture(self) -> Capture:
        """Captures at the switch's end of the cable: what is really on the wire, whatever the host thinks."""
        capture = Capture(self.switch, self.port, self.folder / f"capture-{len(self._streams)}.pcap")
        self._streams.append(capture)
        return capture

    # --- its CPU

    def starve(self, share: float) -> None:
        """All that runs on the host, now or later, gets `share` of one CPU (0 to 1) until `feed`."""
        assert 0 < share <= 1, share
        self.feed()
        self._diet = starving.diet(self.short)
        self._diet.begin(self.namespace.processes(), share)

    def feed(self) -> None:
        """Ends starvation, if there is any."""
        if self._diet is not None:
            self._diet.end()
            self._diet = None

    @contextlib.contextmanager
    def starved(self, share: float) -> Iterator[None]:
        """`starve` meanwhile."""
        self.starve(share)
        try:
            yield
        finally:
            self.feed()

    def _started(self, pid: int) -> None:
        if self._diet is not None:
            self._diet.add(pid)

    # --- the end

    def end_all(self) -> None:
        """Kills what this host runs."""
        self.feed()
        for stream in self._streams:
            stream.kill()
        if self._controller is not None:
            self.kill_swanmesh()
        if self._charon is not None:
            self.kill_charon()


def _charon_program() -> str:
    return (
        shutil.which("charon-systemd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        or "charon-systemd"
    )


def _checked(
    host: str, done: subprocess.CompletedProcess[str], check: bool
) -> subprocess.CompletedProcess[str]:
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{host}: {' '.join(map(str, done.args))} ended with status {done.returncode}\n"
            f"{done.stdout}{done.stderr}"
        )
    return done
