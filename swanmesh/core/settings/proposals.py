"""Proposals, such as aes128gcm16-prfsha256-x25519: whether charon can read them, and what it needs to carry
them out.

Sources: strongSwan's libstrongswan/crypto/proposal/proposal_keywords_static.txt and proposal.c
(check_proposal), 5.9.8 and 6.0.6. Algorithms are named as `get-algorithms` names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MORE_KEY_EXCHANGES = "ADDITIONAL_KEY_EXCHANGE"
"""Our name, beside charon's, for several key exchanges in one proposal (`ke1_…`, RFC 9370): from 6.0 on."""

_SIZES = ("128", "192", "256")
_CLASSIC = {"null": "NULL", "des": "DES_CBC", "3des": "3DES_CBC", "cast128": "CAST_CBC"}
_CLASSIC |= {
    f"{name}{size}": f"{name.upper()}_CBC"
    for name in ("aes", "blowfish", "camellia", "serpent", "twofish")
    for size in ("", *_SIZES)
}
_CLASSIC |= {f"{name}{size}ctr": f"{name.upper()}_CTR" for name in ("aes", "camellia") for size in _SIZES}
_AEAD = {"chacha20poly1305": "CHACHA20_POLY1305", "chacha20poly1305compat": "CHACHA20_POLY1305"}
_AEAD |= {f"aes{size}gmac": "NULL_AES_GMAC" for size in _SIZES}
_AEAD |= {
    f"{name}{size}{mode}{tag}": f"{name.upper()}_{mode.upper()}_{octets}"
    for name, mode in (("aes", "ccm"), ("aes", "gcm"), ("camellia", "ccm"))
    for size in _SIZES
    for octets in (8, 12, 16)
    for tag in (str(octets), str(octets * 8), *([""] if octets == 16 else []))
}
_INTEGRITY = {
    "sha": "HMAC_SHA1_96",
    "sha1": "HMAC_SHA1_96",
    "sha1_160": "HMAC_SHA1_160",
    "sha256": "HMAC_SHA2_256_128",
    "sha2_256": "HMAC_SHA2_256_128",
    "sha256_96": "HMAC_SHA2_256_96",
    "sha2_256_96": "HMAC_SHA2_256_96",
    "sha384": "HMAC_SHA2_384_192",
    "sha2_384": "HMAC_SHA2_384_192",
    "sha512": "HMAC_SHA2_512_256",
    "sha2_512": "HMAC_SHA2_512_256",
    "md5": "HMAC_MD5_96",
    "md5_128": "HMAC_MD5_128",
    "aesxcbc": "AES_XCBC_96",
    "camelliaxcbc": "CAMELLIA_XCBC_96",
    "aescmac": "AES_CMAC_96",
}
_PRF = {
    "prfsha1": "PRF_HMAC_SHA1",
    "prfsha256": "PRF_HMAC_SHA2_256",
    "prfsha384": "PRF_HMAC_SHA2_384",
    "prfsha512": "PRF_HMAC_SHA2_512",
    "prfmd5": "PRF_HMAC_MD5",
    "prfaesxcbc": "PRF_AES128_XCBC",
    "prfcamelliaxcbc": "PRF_CAMELLIA128_XCBC",
    "prfaescmac": "PRF_AES128_CMAC",
}
_IMPLIED = {
    "HMAC_SHA1": "PRF_HMAC_SHA1",
    "HMAC_SHA2_256": "PRF_HMAC_SHA2_256",
    "HMAC_SHA2_384": "PRF_HMAC_SHA2_384",
    "HMAC_SHA2_512": "PRF_HMAC_SHA2_512",
    "HMAC_MD5": "PRF_HMAC_MD5",
    "AES_XCBC": "PRF_AES128_XCBC",
    "CAMELLIA_XCBC": "PRF_CAMELLIA128_XCBC",
    "AES_CMAC": "PRF_AES128_CMAC",
}
"""The PRF that goes with an integrity algorithm, by the start of its name, where a proposal names none."""
_KEY_EXCHANGE = {
    **{f"modp{bits}": f"MODP_{bits}" for bits in (768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)},
    **{
        f"modp{bits}s{order}": f"MODP_{bits}_{order}"
        for bits, order in ((1024, 160), (2048, 224), (2048, 256))
    },
    **{f"ecp{bits}": f"ECP_{bits}" for bits in (192, 224, 256, 384, 521)},
    **{f"ecp{bits}bp": f"ECP_{bits}_BP" for bits in (224, 256, 384, 512)},
    **{f"mlkem{size}": f"ML_KEM_{size}" for size in (512, 768, 1024)},
    **{f"ntru{bits}": f"NTRU_{bits}" for bits in (112, 128, 192, 256)},
    "curve25519": "CURVE_25519",
    "x25519": "CURVE_25519",
    "curve448": "CURVE_448",
    "x448": "CURVE_448",
    "newhope128": "NEWHOPE_128",
    "gost256": "GOST3410_256",
    "gost512": "GOST3410_512",
    "modpnull": "MODP_NULL",
}
_NO_KEY_EXCHANGE = frozenset({"none", "modpnone"})
_SEQUENCE_NUMBERS = frozenset({"esn", "noesn"})
_KNOWN = (_CLASSIC, _AEAD, _INTEGRITY, _PRF, _KEY_EXCHANGE, _NO_KEY_EXCHANGE, _SEQUENCE_NUMBERS)
_ADDITIONAL = re.compile(r"ke[1-7]_(.+)")
_DEFAULT = "default"
"""charon's own proposals: it leaves out by itself what it cannot do."""


def fault(proposal: str, *, ike: bool) -> str:
    """Why charon would refuse the proposal, for IKE or for ESP; empty if it would not."""
    if proposal == _DEFAULT:
        return ""
    words = proposal.split("-")
    for word in words:
        if not any(_plain(word) in table for table in _KNOWN):
            return f"{word} is no algorithm that strongSwan knows"
    classic, aead, integrity, prf, exchange = (
        any(word in table for word in words) for table in (_CLASSIC, _AEAD, _INTEGRITY, _PRF, _KEY_EXCHANGE)
    )
    faults = {
        "it names no encryption algorithm": not (classic or aead),
        "it mixes encryption that authenticates, such as GCM, with other": classic and aead,
        "it names no integrity algorithm, such as sha256": ike and classic and not integrity,
        "it names no pseudo-random function, such as prfsha256": ike and aead and not prf,
        "it names no key exchange, such as x25519": ike and not exchange,
    }
    return next((what for what, is_so in faults.items() if is_so), "")


def unsupported(proposal: str, algorithms: frozenset[str], *, ike: bool) -> list[str]:
    """Names of what the proposal needs and a charon with these `algorithms` has not. ESP's encryption is the
    kernel's, of which charon knows nothing."""
    if proposal == _DEFAULT:
        return []
    return [name for name in dict.fromkeys(_needs(proposal.split("-"), ike=ike)) if name not in algorithms]


def usable(proposals: Sequence[str], algorithms: frozenset[str] | None, *, ike: bool) -> tuple[str, ...]:
    """Those that charon can carry out; all of them if that is unknown, or true of none: then they fail, and
    with a reason that names them.

    One that it cannot do is worse than useless: as initiator charon fails with the first key exchange that it
    lacks, whatever stands behind it (sa/ikev2/tasks/ike_init.c, build_i)."""
    if algorithms is None:
        return tuple(proposals)
    return tuple(p for p in proposals if not unsupported(p, algorithms, ike=ike)) or tuple(proposals)


def _needs(words: Sequence[str], *, ike: bool) -> Iterator[str]:
    for word in words:
        if (name := _KEY_EXCHANGE.get(_plain(word))) is not None:
            yield name
        if _ADDITIONAL.fullmatch(word):
            yield MORE_KEY_EXCHANGES
    if not ike:
        return
    aead = any(word in _AEAD for word in words)
    integrity = [] if aead else [_INTEGRITY[word] for word in words if word in _INTEGRITY]
    yield from (table[word] for table in (_CLASSIC, _AEAD, _PRF) for word in words if word in table)
    yield from integrity
    if not any(word in _PRF for word in words):
        yield from (prf for start, prf in _IMPLIED.items() for name in integrity if name.startswith(start))


def _plain(word: str) -> str:
    """Without what says which of several key exchanges it is."""
    match = _ADDITIONAL.fullmatch(word)
    return match[1] if match and (match[1] in _KEY_EXCHANGE or match[1] in _NO_KEY_EXCHANGE) else word
