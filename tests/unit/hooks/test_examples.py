"""The hooks that ship switched off, switched on: real processes, with a sendmail and a chat of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.waiting import wait_until
from swanmesh.hooks.discovery import find_hooks
from swanmesh.hooks.process import HookRun, run_hook
from swanmesh.hooks.queue import Turn
from tests.unit.hooks.hooking import event, write_hook

SHIPPED = Path(__file__).parents[3] / "conf" / "hooks.d"
EXAMPLES = ("mail-when-down", "chat-webhook")
UNTOLD = "T0PS3CRET"
"""What of the URL must be seen nowhere."""


def switched_on(directory: Path, name: str, **settings: str | Path) -> Path:
    """A copy under the name that makes it run, with other settings."""
    text = (SHIPPED / f"{name}.disabled").read_text()
    for key, value in settings.items():
        text, found = re.subn(rf"^{key}=\S+", f"{key}={value}", text, flags=re.MULTILINE)
        assert found == 1, key
    path = directory / name
    directory.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def tell(hook: Path, kind: str, peer: str = "", reason: str = "", *, test: bool = False) -> HookRun:
    addresses = ("192.0.2.7",) if peer else ()
    environment = {"SWANMESH_HOST": "web1.mesh.example"} | ({"SWANMESH_TEST": "1"} if test else {})
    runs: list[HookRun] = []
    turn = Turn(event(kind, peer, reason, *addresses))
    asyncio.run(run_hook(hook, turn, runs.append, environment=environment, timeout=30.0))
    return runs[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_switched_off_as_shipped_and_runnable_once_renamed(name: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "hooks.d")
    (tmp_path / "hooks.d").chmod(0o755)
    assert find_hooks(tmp_path / "hooks.d").hooks == ()
    shipped = tmp_path / "hooks.d" / f"{name}.disabled"
    shipped.rename(shipped.with_suffix(""))
    assert [path.name for path in find_hooks(tmp_path / "hooks.d").hooks] == [name]


def test_shellcheck_is_content() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [shellcheck, *sorted(map(str, SHIPPED.iterdir()))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# Mail.


@dataclass
class Mailing:
    """mail-when-down with a sendmail that keeps what it gets."""

    hook: Path
    folder: Path

    @property
    def mails(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob("mail.*"))]

    @property
    def notes(self) -> set[str]:
        return {path.name for path in (self.folder / "notes").glob("*.down")}

    def lines(self) -> list[str]:
        """What all mails say, line by line, without their heads."""
        return [line for mail in self.mails for line in mail.partition("\n\n")[2].splitlines()]


@pytest.fixture
def mailing(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mailing]:
    if Path("/run/systemd/system").exists():
        pytest.skip("would have systemd run the sendmail of this test")
    sendmail = write_hook(
        tmp_path / "bin" / "sendmail",
        f"""
        test ! -e {tmp_path}/broken || exit 75
        cat > {tmp_path}/incoming.$$ && mv {tmp_path}/incoming.$$ {tmp_path}/mail.$(date +%s.%N)
        """,
    )
    settings: dict[str, str | Path] = {
        "AFTER": str(getattr(request, "param", 1)),
        "NOTES": tmp_path / "notes",
        "SENDMAIL": sendmail,
    }
    yield Mailing(switched_on(tmp_path / "hooks.d", "mail-when-down", **settings), tmp_path)
    # A watcher ends when there is nothing left to watch.
    shutil.rmtree(tmp_path / "notes", ignore_errors=True)


def test_one_mail_for_all_that_are_down_long_enough(mailing: Mailing) -> None:
    for number in range(1, 6):
        run = tell(mailing.hook, "peer-down", f"web{number}", "peer unreachable")
        assert (run.error, run.output) == ("", ())
    wait_until(lambda: len(mailing.lines()) == 5, 30, "all five were mailed")
    assert len(mailing.mails) < 5
    head = mailing.mails[0].partition("\n\n")[0].splitlines()
    assert head[0] == "To: root"
    assert re.fullmatch(r"Subject: web1\.mesh\.example: IPsec down to \d peer\(s\)", head[1])
    line = sorted(mailing.lines())[0]
    assert re.fullmatch(r"web1 \(192\.0\.2\.7\), down since 20\S+ \S+ \S+: peer unreachable", line)
    assert mailing.notes == set()


@pytest.mark.parametrize("mailing", [4], indirect=True)
def test_who_is_up_in_time_or_removed_is_not_mailed(mailing: Mailing) -> None:
    for peer in ("web1", "web2", "web3"):
        tell(mailing.hook, "peer-down", peer)
    tell(mailing.hook, "peer-up", "web1")
    tell(mailing.hook, "peer-removed", "web2")
    wait_until(lambda: mailing.mails, 30, "the third was mailed")
    assert [line.split()[0] for line in mailing.lines()] == ["web3"]
    # Down anew is watched anew, though the first watcher may have ended.
    tell(mailing.hook, "peer-down", "web1")
    wait_until(lambda: len(mailing.lines()) == 2, 30, "the first was mailed, too")


def test_other_events_are_none_of_its_business(mailing: Mailing) -> None:
    for kind in ("started", "charon-lost", "charon-back", "stopping"):
        assert tell(mailing.hook, kind).error == ""
    for kind in ("peer-added", "peer-up", "peer-removed"):
        assert tell(mailing.hook, kind, "web1").error == ""
    assert not (mailing.folder / "notes").exists()


def test_a_test_mails_at_once_and_tells_of_failure(mailing: Mailing) -> None:
    assert tell(mailing.hook, "peer-down", "web1", "a test by hand", test=True).error == ""
    assert "test of mail-when-down" in mailing.mails[0]
    (mailing.folder / "broken").touch()
    assert tell(mailing.hook, "peer-down", "web1", test=True).error == "exit status 75"


# Chat.


@dataclass
class Chat:
    url: str
    status: int = 200
    bodies: list[object] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    """Command lines that showed the secret while a message was under way."""


def leaking() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if UNTOLD.encode() in line:
                found.append(line.decode(errors="replace"))
    return found


@pytest.fixture
def chat() -> Iterator[Chat]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            room.leaks += leaking()
            assert self.headers["Content-Type"] == "application/json"
            room.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(room.status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        room = Chat(f"http://127.0.0.1:{server.server_port}/hooks/{UNTOLD}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield room
        server.shutdown()
        thread.join()


@pytest.fixture
def chatting(tmp_path: Path, chat: Chat) -> Path:
    url = tmp_path / "url"
    url.write_text(chat.url)
    url.chmod(0o600)
    return switched_on(tmp_path / "hooks.d", "chat-webhook", URL_FILE=url)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_the_chat_gets_a_line_whatever_it_contains(chatting: Path, chat: Chat) -> None:
    reason = 'he said "\\no"\n$(reboot) `x` ünï'
    run = tell(chatting, "peer-down", "web2.mesh.example", reason)
    assert (run.error, run.output) == ("", ())
    tell(chatting, "peer-up", "web2.mesh.example")
    tell(chatting, "charon-lost", reason="the socket was closed")
    tell(chatting, "charon-back", test=True)
    assert tell(chatting, "peer-added", "web2.mesh.example").error == ""
    assert chat.bodies == [
        {"text": 'web1.mesh.example: IPsec to web2.mesh.example is down: he said "\\no" $(reboot) `x` ünï'},
        {"text": "web1.mesh.example: IPsec to web2.mesh.example is up"},
        {"text": "web1.mesh.example: charon is lost: the socket was closed"},
        {"text": "web1.mesh.example: charon is back (a test)"},
    ]
    assert chat.leaks == []


@needs_curl
@pytest.mark.parametrize(
    ("reason", "arrives"),
    [
        ("<!here> <@U024BE7LH> <https://evil.example|mesh> &lt;!channel&gt;", None),
        ("@channel @all @here @everyone @room, [status](https://evil.example)", None),
        ("a\tb\x1b[31mc\x7fd\x9be\u202ef\u2028g", "a b [31mc d e f g"),
    ],
)
def test_what_others_wrote_arrives_as_text(
    chatting: Path, chat: Chat, reason: str, arrives: str | None
) -> None:
    """Nothing of it is markup or a mention to the chat; read as a person does, it is what was sent."""
    assert tell(chatting, "peer-down", "web2", reason).error == ""
    [body] = chat.bodies
    assert isinstance(body, dict)
    assert not re.search(r"[<>]|@\w|\]\(|&(?!amp;|lt;|gt;)", body["text"])
    seen = html.unescape(body["text"]).replace("\u200b", "").partition("is down: ")[2]
    assert seen == (arrives or reason)


@needs_curl
def test_a_refusal_of_the_chat_is_a_failure_that_keeps_the_secret(chatting: Path, chat: Chat) -> None:
    chat.status = 403
    run = tell(chatting, "peer-up", "web2")
    assert run.error.startswith("exit status")
    assert "403" in " ".join(run.output)
    assert UNTOLD not in " ".join(run.output)


def test_a_url_that_others_can_read_is_not_used(chatting: Path, chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "url").chmod(0o640)
    run = tell(chatting, "peer-up", "web2")
    assert run.status == 1
    assert "chmod 0600" in run.output[0]
    (tmp_path / "url").unlink()
    assert tell(chatting, "peer-up", "web2").status == 1
    assert chat.bodies == []
