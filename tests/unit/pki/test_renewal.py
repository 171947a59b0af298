"""A program answers this host's request: what does not fit changes nothing, wherever it is cut off."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from swanmesh.pki.enrolment import Place
from swanmesh.pki.renewal import NotRenewed, renew
from tests.unit.hooks.hooking import write_hook
from tests.unit.pki.certify import HOST, NOW, Certified, key, put
from tests.unit.pki.killing import killed_everywhere
from tests.unit.pki.test_enrolment import ROOT, SANS, STRANGER, answer, contents, credentials, place, take

__all__ = ["place"]


@pytest.fixture
def held(place: Place) -> Place:
    """With a certificate in use, that ends in thirty days."""
    take(place, answer(place), ROOT)
    return place


def program(place: Place, *answers: Certified, text: str = "") -> str:
    """A program that reads its standard input and answers with these certificates, or does as `text` says."""
    folder = place.private_key.parent.parent
    (folder / "answer").write_bytes(b"".join(one.pem for one in answers))
    path = folder / "program"
    write_hook(path, text or f"cat > {folder}/asked; cat {folder}/answer")
    return str(path)


def renewed(place: Place, *command: str, time_limit: float = 20.0, outlives: bool = True) -> x509.Certificate:
    async def main() -> x509.Certificate:
        return await renew(
            place,
            command,
            environment={},
            time_limit=time_limit,
            clock=lambda: NOW.timestamp() + 60,
            outlives=outlives,
        )

    return asyncio.run(main())


def later(place: Place, **options: Any) -> Certified:
    return answer(place, **{"end": NOW + timedelta(days=90), **options})


def test_a_new_key_gets_a_new_certificate(held: Place) -> None:
    before = credentials(held)
    new = later(held)
    assert renewed(held, program(held, new, ROOT)) == new.certificate
    after = credentials(held)
    assert after.certificate == new.der and after.private_key != before.private_key
    modes = {path.name: path.stat().st_mode & 0o777 for path in held.private_key.parent.iterdir()}
    assert modes == {"host.pem": 0o644, "host.key": 0o600, "ca.pem": 0o644}
    asked = x509.load_pem_x509_csr((held.private_key.parent.parent / "asked").read_bytes())
    assert asked.public_key() == new.certificate.public_key() and asked.is_signature_valid


@pytest.mark.parametrize("kind", ["ed25519", "rsa2048"])
def test_a_new_key_is_of_the_kind_of_the_last(place: Place, kind: str) -> None:
    from tests.unit.pki.certify import certify

    old = certify("a", ROOT, private=key(kind), others=SANS)
    for path, content in (
        (place.certificate, old.pem),
        (place.private_key, old.key_bytes()),
        (place.authorities[0], ROOT.pem),
    ):
        put(path, content, 0o600)
    with pytest.raises(NotRenewed):
        renewed(place, program(place, text="cat > /dev/null; exit 1"))
    new = later(place)
    assert type(new.certificate.public_key()) is type(old.certificate.public_key())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo the authority sleeps >&2; exit 3", "program: exit status 3: the authority sleeps"),
        ("true", "holds no certificate that can be read"),
        ("echo no certificate", "holds no certificate that can be read"),
        ("cat", "holds no certificate that can be read"),
        ("while :; do echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; done", "SIGXFSZ|exit status"),
        ("sleep 600 & sleep 600", "not done after 0.3 s: ended with all of its processes"),
    ],
)
def test_a_program_that_fails_changes_nothing(held: Place, text: str, words: str) -> None:
    before = contents(held)
    with pytest.raises(NotRenewed, match=words):
        renewed(held, program(held, text=text), time_limit=0.3 if "600" in text else 20)
    after = contents(held)
    assert set(after) - set(before) == {"host.key.pending"}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"end": NOW + timedelta(days=30)}, "ends no later than the certificate in use"),
        ({"end": NOW + timedelta(days=7)}, "ends no later than the certificate in use"),
        ({"start": NOW + timedelta(hours=3)}, "is not valid before .*; set the clock right, or wait"),
        ({"issuer": STRANGER}, "was issued by none of"),
        ({"names": ["web2.mesh.example"]}, f"does not hold the host's name {HOST}"),
        ({"others": SANS[:1]}, "2001:db8::1 of host.addresses is not among them"),
        ({"private": key("p256", 8)}, "belongs to neither the key that waits"),
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(
    held: Place, options: dict[str, Any], words: str
) -> None:
    command = program(held, later(held, **options))
    before = contents(held)
    with pytest.raises(NotRenewed, match=words):
        renewed(held, command)
    assert contents(held) == before
    assert renewed(held, program(held, later(held))), "the key that waits is good for the next attempt"


def test_one_that_was_asked_for_at_once_may_end_sooner(held: Place) -> None:
    """Who gives a key up early gets a certificate whose end chance has put before that of the one in use."""
    sooner = later(held, end=NOW + timedelta(days=29))
    assert renewed(held, program(held, sooner), outlives=False) == sooner.certificate
    assert credentials(held).certificate == sooner.der


def test_a_program_that_others_could_change_is_not_run(held: Place) -> None:
    command = Path(program(held, later(held)))
    command.chmod(0o777)
    with pytest.raises(NotRenewed, match=r"is not run: .*program can be changed by others"):
        renewed(held, str(command))
    command.unlink()
    with pytest.raises(NotRenewed, match="cannot be run: no such file"):
        renewed(held, str(command))


def test_killed_anywhere_a_pair_works_and_the_next_renewal_completes(held: Place) -> None:
    old, pair = credentials(held), contents(held)
    command, new = program(held, later(held), ROOT), later(held)
    waiting = contents(held)["host.key.pending"]
    put(Path(command).with_name("answer"), new.pem, 0o600)
    seen = set()
    for _ in killed_everywhere(lambda: renewed(held, command)):
        seen.add(credentials(held).certificate)
        assert {p.stat().st_mode & 0o077 for p in held.private_key.parent.glob("*key*")} == {0}
        for name, content in {**pair, "host.key.pending": waiting}.items():
            put(held.private_key.parent / name, content, 0o600)
    assert seen == {old.certificate, new.der}


def test_on_a_full_disk_the_old_pair_works(held: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write and each link in turn finds no room."""
    before, command = contents(held), program(held, later(held))
    got_through = False
    for step in range(1, 40):
        with monkeypatch.context() as patched:
            left = failing_at(step, patched)
            try:
                renewed(held, command)
                got_through = True
            except NotRenewed as error:
                assert "no space left on device; free some space" in str(error)
        if got_through:
            break
        assert left() == 0
        assert credentials(held)
        assert {name: contents(held)[name] for name in before} == before
    assert got_through and step > 2


def failing_at(step: int, patched: pytest.MonkeyPatch) -> Callable[[], int]:
    """From this step on the disk on which the host's files lie is full. Tells how many steps were before."""
    left = step

    def full(real: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: object, **options: object) -> int:
            nonlocal left
            left = max(0, left - 1)
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    for name in ("write", "link", "fsync"):
        patched.setattr(os, name, full(getattr(os, name)))
    return lambda: left
