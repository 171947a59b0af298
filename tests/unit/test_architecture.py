"""Who may import what: `cli -> service -> {charon, kernel, config, …} -> files, programs -> core`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import swanmesh

ROOT = Path(swanmesh.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

BASE = {"files", "programs", "core"}
MIDDLE = {"charon", "kernel", "config", "pki", "hooks", "control", "machine", "probe", "throughput"}
ALLOWED = {
    "core": {"core"},
    "files": {"files", "core"},
    "programs": {"programs", "core"},
    **{room: {room} | BASE for room in MIDDLE},
    "machine": {"machine", "kernel"} | BASE,
    "probe": {"probe", "kernel"} | BASE,
    "service": {"service"} | MIDDLE | BASE,
    "throughput": {"throughput", "machine", "kernel"} | BASE,
    "cli": {"cli"} | (MIDDLE - {"charon"}) | BASE,
}
"""Room of the importer -> the rooms that it may import."""

ACTS = {
    "aiohttp",
    "asyncinotify",
    "asyncio",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "structlog",
    "subprocess",
    "sys",
    "tempfile",
    "tenacity",
    "threading",
    "time",
    "uuid",
    "vici",
    "yaml",
}
"""What the core has no business with: clock, files, sockets, processes, logs, chance of its own."""


DOOR = {"mesh", "verdict", "commands", "readiness"}
"""What stands above `inputs/` in the core; all other modules beside it stand below `decide/`."""


def floor(parts: tuple[str, ...]) -> int:
    """On which floor of the core a module stands, by its path below `core`."""
    if parts[0].removesuffix(".py") in DOOR:
        return 3
    return {"inputs": 2, "decide": 1}.get(parts[0], 0)


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    name: str
    """What is taken out of the module by `from … import`; empty for a plain import."""
    line: int
    within: str
    """The function that it stands in; empty at the head of the module."""

    @property
    def part(self) -> str:
        """The part of swanmesh that it imports; empty for any other package."""
        words = [*self.module.split("."), self.name]
        return words[1] if words[0] == "swanmesh" and len(words) > 1 else ""


def imports(module: Path, text: str) -> Iterator[Import]:
    """Every import in the text of `module` (a path below swanmesh/), relative ones made absolute."""
    package = ["swanmesh", *module.parent.parts]

    def walk(node: ast.AST, within: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else within
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, within)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                name = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield Import(name, alias.name, child.lineno, within)
            yield from walk(child, inside)

    yield from walk(ast.parse(text), "")


def breaches(module: Path, text: str) -> list[str]:
    """What in this module goes against the rules, one line each."""
    room = module.parts[0] if len(module.parts) > 1 else "cli"
    found = []
    for item in imports(module, text):
        where = f"swanmesh/{module}:{item.line}"
        if room == "core" and item.module.split(".")[0] in ACTS:
            found.append(f"{where}: the core imports {item.module}")
        if not item.part or item.part.startswith("__"):
            continue
        if room == item.part == "core":
            target = (*item.module.split("."), item.name)[2:]
            if target and floor(target) > floor(module.parts[1:]):
                found.append(f"{where}: imports what stands above it, {'.'.join(target)}")
        in_its_place = (
            module.name in ("run.py", "purge.py", "disable.py")
            and item.within != ""
            and item.part == "service"
        )
        if item.part not in ALLOWED.get(room, set()) and not (room == "cli" and in_its_place):
            found.append(f"{where}: {room} imports {item.part}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports_only_what_lies_below_it(module: Path) -> None:
    assert breaches(module, (ROOT / module).read_text()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("core/decide/rules.py", "import time"),
        ("core/decide/rules.py", "from os import path"),
        ("core/decide/rules.py", "from swanmesh.charon import client"),
        ("core/decide/rules.py", "from ...config import entry_files"),
        ("core/decide/rules.py", "def f() -> None:\n    import socket"),
        ("core/pairs/pair.py", "from swanmesh.core.decide.rules import decide"),
        ("core/decide/rules.py", "from swanmesh.core.inputs import files"),
        ("core/inputs/files.py", "from swanmesh.core import mesh"),
        ("files/write.py", "from swanmesh.config.documents import read_bytes"),
        ("charon/client.py", "from ..config import settings"),
        ("pki/authority.py", "from swanmesh import hooks"),
        ("control/server.py", "from ..charon.client import Charon"),
        ("cli/status.py", "def f() -> None:\n    from ..service.loop import main"),
        ("cli/run.py", "from ..service.loop import main"),
        ("cli/peers.py", "from ..charon import client"),
        ("service/loop.py", "from ..cli import main"),
    ],
)
def test_a_breach_is_seen(module: str, text: str) -> None:
    assert len(breaches(Path(module), text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("core/decide/rules.py", "from swanmesh.core.pairs.pair import Pair\nimport random"),
        ("charon/client.py", "import socket\nfrom ..core.observed import IkeSa"),
        ("cli/run.py", "def f() -> None:\n    from ..service.loop import main"),
        ("cli/main.py", "from swanmesh import __version__"),
        ("service/loop.py", "from swanmesh.core.mesh import Mesh\nfrom swanmesh.charon import client"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, text: str) -> None:
    assert breaches(Path(module), text) == []


@pytest.mark.parametrize("depth", [1, 2, 9], ids=["rooms", "rooms-within", "modules"])
def test_no_two_know_each_other(depth: int) -> None:
    """Neither rooms, nor the rooms within one, nor modules: CycleError names a circle."""
    names = {module: ("swanmesh", *module.with_suffix("").parts) for module in MODULES}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for module, name in names.items():
        room = name[: depth + 1]
        graph.setdefault(room, set())
        for item in imports(module, (ROOT / module).read_text()):
            path = (*item.module.split("."), item.name)
            target = path if path in names.values() else path[:-1]
            if target in names.values() and target[: depth + 1] != room:
                graph[room].add(target[: depth + 1])
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_every_folder_has_a_rule() -> None:
    folders = {module.parts[0] for module in MODULES if len(module.parts) > 1}
    assert folders <= ALLOWED.keys()


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "core"], ids=str)
def test_core_has_no_chance_of_its_own(module: Path) -> None:
    """Random numbers come from a generator that the caller seeded, never from the module's shared one."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr not in ("Random",)
    ]
    assert [node.attr for node in calls] == []
