"""`make lab`: a shell in a running mesh.

Run as `lab/run python -m lab.shell [HOSTS]`; as `python -m lab.shell link N FAULT …` it is
the command `link` of that shell.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lab.mesh import ROOM, Mesh, link_of, mesh

_WELCOME = """
{count} hosts in full mesh, each a namespace with a charon and a `swanmesh run`: {hosts}
A host's files and logs are in {room}/h1 and so on. Everything ends with this shell.

  host 1 swanmesh status            any command on host 1, or a shell without one
  host 1 ping {second}
  host 1 swanctl --list-sas
  host 1 tail -f swanmesh.log
  link 2 cut [both|in|out]          nothing gets through; `in` is what comes to the host
  link 2 drop ike|esp
  link 2 delay 50                   milliseconds each way
  link 2 loss 10                    percent each way
  link 2 restore
  wire                              what the switch carries (tcpdump)
"""
_HOST = """\
#!/bin/bash
number=${{1-}}; shift
[[ -n $number && -d {room}/h$number ]] || {{
  echo "host N [COMMAND …]: there is no host '$number'" >&2
  exit 2
}}
cd {room}/h$number
export SWANMESH_CONFIG=$PWD/swanmesh.yaml STRONGSWAN_CONF=$PWD/strongswan.conf SWANCTL_DIR=$PWD/swanctl
export PS1="h$number# "
[[ $# -gt 0 ]] || set -- bash --norc -i
exec ip netns exec swanlab-h$number "$@"
"""
_LINK = """\
#!/bin/bash
cd {project} && exec {python} -m lab.shell link "$@"
"""
_WIRE = """\
#!/bin/bash
exec ip netns exec swanlab-switch tcpdump -n -l -i br0 "$@"
"""
_SWANMESH = """\
#!/bin/bash
PYTHONPATH={project} exec {python} -m swanmesh "$@"
"""
_USAGE = "link N cut [both|in|out] | drop ike|esp | delay MILLISECONDS | loss PERCENT | restore"


def _commands(lab: Mesh) -> Path:
    """Writes the shell's commands and returns their folder."""
    folder = ROOM / "bin"
    folder.mkdir()
    values = {"room": ROOM, "project": Path(__file__).parents[1], "python": sys.executable}
    for name, text in {"host": _HOST, "link": _LINK, "wire": _WIRE, "swanmesh": _SWANMESH}.items():
        (folder / name).write_text(text.format(**values))
        (folder / name).chmod(0o755)
    hosts = " ".join(f"{host.short}={host.addresses[0]}" for host in lab)
    welcome = _WELCOME.format(count=len(lab), hosts=hosts, room=ROOM, second=lab[1].addresses[0])
    (ROOM / "shellrc").write_text(f"PS1='lab# '\ncat <<'END'\n{welcome}\nEND\n")
    return folder


def shell(count: int) -> int:
    """Opens a shell in a mesh of `count` hosts and returns its exit status."""
    print(f"starting {count} hosts", flush=True)
    with mesh(count, ipv6=1, name="shell") as lab:
        lab.start()
        lab.wait_until_full(60 + 4 * count)
        path = f"{_commands(lab)}:{os.environ['PATH']}:/usr/sbin:/sbin"
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for what runs in the shell
        command = ("bash", "--rcfile", str(ROOM / "shellrc"), "-i")
        environment = os.environ | {"PATH": path}
        return subprocess.run(
            command,
            env=environment,
            cwd=ROOM,
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ).returncode


def link(words: list[str]) -> int:
    """The shell's command `link`."""
    try:
        cable = link_of(int(words[0]))
        match words[1:]:
            case ["cut"]:
                cable.cut()
            case ["cut", ("both" | "in" | "out") as direction]:
                cable.cut(direction)
            case ["drop", ("ike" | "esp") as what]:
                cable.drop(what)
            case ["delay", amount]:
                cable.delay(float(amount))
            case ["loss", amount]:
                cable.loss(float(amount))
            case ["restore"]:
                cable.restore()
            case _:
                raise ValueError
    except (ValueError, IndexError):
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"link: {error}\n")
        return 1
    return 0


def main() -> int:
    """The command."""
    words = sys.argv[1:] or ["3"]
    if words[0] == "link":
        return link(words[1:])
    if len(words) != 1 or not words[0].isdigit() or not 2 <= int(words[0]) <= 200:
        sys.stderr.write(f"HOSTS={' '.join(words)}: say a number from 2 to 200\n")
        return 2
    if not sys.stdin.isatty():
        sys.stderr.write(
            "make lab is a shell and needs a terminal; to run one command in a mesh, see lab/README.md\n"
        )
        return 2
    return shell(int(words[0]))


if __name__ == "__main__":
    sys.exit(main())
