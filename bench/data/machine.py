"""Guests: a kernel of Debian's, a small root of this machine's own programs, and QEMU.

A kernel is the one that linux-image-cloud-amd64 stands for in a release of Debian. That of this machine's own
release comes by its apt as it is; another release by an apt with folders of its own, from the same mirror,
its signature checked against Debian's keyring: /etc/apt and /var/lib/apt are not touched.

The root is an initrd: the programs named here with what ldd says they need, Python, and those modules alone
that a measurement loads. What a guest is to do stands in /job.json, an archive of its own behind the first;
what it found it prints on the serial console, a line of JSON each behind a mark.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GUEST = Path(__file__).parent / "guest"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "swanmesh-data"
MARK = "@@ "

PACKAGE = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

PROGRAMS = [
    "bash",
    "sh",
    "ip",
    "tc",
    "iperf3",
    "tincd",
    "nebula",
    "wg",
    "ping",
    "sleep",
    "mount",
    "modprobe",
    "rmmod",
    "lsmod",
    "insmod",
    "cat",
    "awk",
    "grep",
    "mknod",
    "mkdir",
    "ethtool",
    "env",
    "sysctl",
    "tcpdump",
    "kill",
    "python3",
]
"""Where one is missing the guest does without, and what needs it fails there by name."""
MODULES = [
    "xfrm_user",
    "esp4",
    "esp6",
    "esp4_offload",
    "esp6_offload",
    "gcm",
    "ctr",
    "seqiv",
    "echainiv",
    "aesni-intel",
    "ghash-clmulni-intel",
    "ghash-generic",
    "ccm",
    "veth",
    "bridge",
    "tun",
    "wireguard",
    "chacha20poly1305",
    "chacha-x86_64",
    "poly1305-x86_64",
    "curve25519-x86_64",
    "sch_netem",
    "sch_tbf",
    "virtio_net",
    "virtio_pci",
    "af_packet",
    "drbg",
    "jitterentropy_rng",
    "hmac",
    "sha512_generic",
    "sha256_generic",
    "ecb",
    "cmac",
]
"""Where one is built in, or not made for a kernel, it is passed over."""
_PYTHON_LEFT_OUT = [
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "distutils",
    "ensurepip",
    "pydoc_data",
    "__pycache__",
    "dist-packages",
    "site-packages",
    "sqlite3",
    "unittest",
    "curses",
    "venv",
]


class NotThere(Exception):
    """A kernel or a program cannot be had; says what to do."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    release: str
    version: str
    image: Path
    folder: Path


def own_release() -> str:
    """This machine's release of Debian, by its code name."""
    found = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else ""


def kernel(release: str) -> Kernel:
    """The newest one of `release`, fetched if it is not here yet. Raises NotThere."""
    options = [] if release == own_release() else _other_apt(release)
    depends = _output("apt-cache", *options, "depends", "--important", PACKAGE)
    packages: list[str] = re.findall(r"Depends: (linux-image-\S+)", depends)
    if not packages:
        raise NotThere(f"apt knows no {PACKAGE} of {release}: try `apt-get update`")
    package = packages[0]
    version = package.removeprefix("linux-image-")
    folder = CACHE / release / package
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _output("apt-get", *options, "download", package, folder=folder)
        archive = next(folder.glob("*.deb"))
        _output("dpkg", "-x", str(archive), str(folder))
        archive.unlink()
        if not (folder / "lib").exists():  # from Debian 13 on
            (folder / "lib").symlink_to("usr/lib")
        (folder / "complete").touch()
    return Kernel(release, version, folder / "boot" / f"vmlinuz-{version}", folder)


def _other_apt(release: str) -> list[str]:
    """Options with which apt sees `release` on this machine's mirror, and changes nothing of ours."""
    mirrors = _output("apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)", "Created-By: Packages")
    found = [
        uri for line in mirrors.splitlines() for uri in line.split()[1:] if re.search(r"/debian/?$", uri)
    ]
    if not found or not Path(KEYRING).exists():
        raise NotThere("this machine's apt names no mirror of Debian, or Debian's keyring is missing")
    folder = CACHE / release / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={KEYRING}] {found[0]} {release} main\n")
    settings = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _output("apt-get", *options, "update", "-q")
    return options


def initrd(kernel: Kernel, into: Path) -> Path:
    """The root of a guest, without a job."""
    with tempfile.TemporaryDirectory(prefix="swanmesh-data-") as name:
        root = Path(name)
        _lay_out(root)
        _copy_programs(root)
        _copy_modules(kernel, root)
        shutil.copytree(GUEST, root / "guest", ignore=shutil.ignore_patterns("__pycache__"))
        with contextlib.suppress(NotThere):
            _keys(root)
        init = root / "init"
        init.write_text(
            "#!/bin/bash\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONPATH=/guest\n"
            "mount -t proc proc /proc; mount -t sysfs sys /sys\n"
            "mount -t devtmpfs dev /dev; mount -t tmpfs t /run\n"
            "mkdir -p /run/netns /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200\n"
            "python3 -B /guest/main.py; echo o >/proc/sysrq-trigger; sleep 60\n"
        )
        init.chmod(0o755)
        path = into / f"initrd-{kernel.version}.gz"
        path.write_bytes(_archive(root))
    return path


def run(
    kernel: Kernel, base: Path, job: dict[str, Any], *, counted: bool, within: float, memory: str = "2G"
) -> Iterator[dict[str, Any]]:
    """What the guest says, as it says it. With `counted`, an instruction is a nanosecond, and nothing else is
    time; else two processors at their own pace. Raises NotThere if it says no more within so many seconds."""
    with tempfile.TemporaryDirectory(prefix="swanmesh-data-") as name:
        folder = Path(name)
        (folder / "root").mkdir()
        (folder / "root" / "job.json").write_text(json.dumps(job))
        whole = folder / "initrd.gz"
        whole.write_bytes(base.read_bytes() + _archive(folder / "root"))
        command = ["nice", "-n", "10", "qemu-system-x86_64", *_machine(counted), "-m", memory]
        command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", str(kernel.image), "-initrd", str(whole)]
        command += ["-append", "console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on"]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as guest:
            late = threading.Event()

            def end() -> None:
                late.set()
                guest.kill()

            watch = threading.Timer(within, end)
            watch.start()
            said: list[str] = []
            done = False
            try:
                assert guest.stdout is not None  # noqa: S101
                for line in guest.stdout:
                    said.append(line.rstrip())
                    if os.environ.get("GUEST_CONSOLE"):
                        print(line.rstrip(), file=sys.stderr, flush=True)
                    if MARK in line:
                        found = json.loads(line.partition(MARK)[2])
                        done = done or "done" in found
                        yield found
            finally:
                watch.cancel()
                guest.kill()
        if not done:
            why = f"took more than {within:.0f} s" if late.is_set() else "ended early"
            raise NotThere(f"the guest of {kernel.version} {why}; it said last:\n" + "\n".join(said[-25:]))


def _machine(counted: bool) -> list[str]:
    if counted:
        return ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max", "-smp", "1"]
    # No KVM: where it is itself in a guest it may hang, and a test should not depend on it.
    return ["-accel", "tcg", "-cpu", "max", "-smp", "2"]


def _lay_out(root: Path) -> None:
    for name in [
        "usr/sbin",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "etc",
        "var/tmp",
        "root",
        "cfg",
    ]:
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "var/run").symlink_to("/run")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")


def _copy_programs(root: Path) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted: list[Path] = []
    for program in PROGRAMS:
        # this machine's own Python, not that of a virtual environment
        found = shutil.which(program, path="/usr/bin:/bin" if program == "python3" else path)
        if found:
            wanted.append(Path(found))
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    shutil.copytree(
        library, root / library.relative_to("/"), ignore=shutil.ignore_patterns(*_PYTHON_LEFT_OUT)
    )
    for one in (*wanted, *library.glob("lib-dynload/*.so")):
        _copy(one, root)
        listed = subprocess.run(["ldd", str(one)], capture_output=True, text=True, check=False).stdout
        for needed in re.findall(r"(/\S+)", listed):
            _copy(Path(needed), root)


def _copy(path: Path, root: Path) -> None:
    """Where it stands here, whatever it is a link to."""
    place = root / path.relative_to("/")
    if path.exists() and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)


def _copy_modules(kernel: Kernel, root: Path) -> None:
    base = kernel.folder / "lib" / "modules" / kernel.version
    if not (base / "modules.dep.bin").exists():
        _output("depmod", "-b", str(kernel.folder), kernel.version)
    into = root / "lib" / "modules" / kernel.version
    into.mkdir(parents=True)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        if (base / name).exists():
            shutil.copy2(base / name, into)
    for module in MODULES:
        shown = subprocess.run(
            ["modprobe", "-d", str(kernel.folder), "-S", kernel.version, "--show-depends", module],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for file in re.findall(r"^insmod (\S+)", shown, re.MULTILINE):
            place = into / Path(file).resolve().relative_to(base.resolve())
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)
    _output("depmod", "-b", str(root), kernel.version)


def _keys(root: Path) -> None:
    """Those that tinc and Nebula take from files; made for each root anew."""
    folder = root / "cfg"
    _output("nebula-cert", "ca", "-name", "x", folder=folder)
    for name, number in (("a", 1), ("b", 2)):
        _output("nebula-cert", "sign", "-name", name, "-ip", f"10.50.0.{number}/24", folder=folder)
        _output("openssl", "genrsa", "-traditional", "-out", f"tinc-{name}.key", "2048", folder=folder)
        _output(
            "openssl",
            "rsa",
            "-in",
            f"tinc-{name}.key",
            "-RSAPublicKey_out",
            "-out",
            f"tinc-{name}.pub",
            folder=folder,
        )


def _archive(root: Path) -> bytes:
    names = _output("find", ".", "-print0", folder=root)
    packed = subprocess.run(
        ["cpio", "--null", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        input=names.encode(),
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    return gzip.compress(packed, 1)


def _output(*command: str, folder: Path | None = None) -> str:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise NotThere(f"{command[0]} is missing: run `make packages-data`") from None
    except subprocess.CalledProcessError as error:
        raise NotThere(f"{' '.join(command)}: {error.stderr.strip()}") from None
