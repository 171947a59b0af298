"""Private keys: of the kinds that charon 5.9.8 with its openssl plugin signs with, made and read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

KINDS: dict[str, Callable[[], PrivateKey]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 3072),
}
"""What makes a key of each kind; RSA of 3072 bits is as strong as P-256 (NIST SP 800-57, table 2)."""

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class Encrypted(Exception):
    """The key is encrypted, and no passphrase or a wrong one was given."""


def read_key(data: bytes, passphrase: bytes | None = None) -> object:
    """The private key in PEM or DER. Raises ValueError if none can be read, and Encrypted."""
    # A DER key is a SEQUENCE.
    der = data[:1] == b"\x30"
    load: Callable[[bytes, bytes | None], object]
    load = serialization.load_der_private_key if der else serialization.load_pem_private_key
    try:
        return load(data, None)
    except TypeError:
        pass
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no private key that can be read") from None
    if passphrase is None:
        raise Encrypted
    try:
        return load(data, passphrase)
    except (ValueError, UnsupportedAlgorithm):
        raise Encrypted from None


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key as PKCS#8, encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """What the key signs with; Edwards curves bring their own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    return hashes.SHA384() if key.key_size in (384, 521) else hashes.SHA256()


def kind_of(key: object) -> str:
    """Which of KINDS makes a key like this one; the first where none does."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa"
    return "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "p256"


def describe_key(key: object) -> str:
    """The kind of a public key, for people."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, key.curve.name)
    return type(key).__name__.lstrip("_").removesuffix("PublicKey")


def weakness(key: object) -> str:
    """Why a private or public key will not do; empty if it will."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "" if key.key_size >= 2048 else f"has an RSA key of {key.key_size} bits, which is too weak"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVES:
            return ""
        return f"has a key on the curve {key.curve.name}, which charon does not sign with"
    if isinstance(
        key,
        ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey | ed448.Ed448PrivateKey | ed448.Ed448PublicKey,
    ):
        return ""
    return "has a kind of key that charon does not sign with"


def public_der(key: object) -> bytes:
    """The public key as SubjectPublicKeyInfo: what tells whether two are one."""
    public = key.public_key() if hasattr(key, "public_key") else key
    assert hasattr(public, "public_bytes")  # noqa: S101 - every public key of `cryptography` has it
    der: bytes = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der
