"""The system's errors about files, in words and with what to do: one table for all of swanmesh."""

from __future__ import annotations

import errno

_REMEDIES: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("create it or correct the path", "create the directory first"),
    errno.ENOTDIR: ("correct the path: a part of it is no directory",) * 2,
    errno.EISDIR: ("correct the path: it is a directory",) * 2,
    errno.ELOOP: ("correct the symbolic link, which leads back to itself",) * 2,
    errno.ENAMETOOLONG: ("give it a shorter name",) * 2,
    errno.EACCES: ("let the service's user read it", "run it as root or as the owner of the directory"),
    errno.EPERM: ("let the service's user read it", "run it as root or as the owner of the directory"),
    errno.EIO: ("look at the kernel's log: the disk reports an error",) * 2,
    errno.EEXIST: ("", "choose another place, or remove it first if nothing needs it"),
    errno.ENOSPC: ("", "free some space on that file system and try again"),
    errno.EDQUOT: ("", "free some space within the quota and try again"),
    errno.EROFS: (
        "",
        "mount that file system writable and try again; for the service, name its folder in ReadWritePaths= "
        "(`systemctl edit swanmesh`)",
    ),
    errno.EFBIG: ("", "raise the limit on the size of files (ulimit -f) and try again"),
}
"""What to do where reading failed, and where writing did."""


def words(error: OSError) -> str:
    """What the system says, in small letters."""
    return (error.strerror or str(error)).lower()


def reading_remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno or 0, ("", ""))[0] or "make it readable for the service"


def writing_remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno or 0, ("", ""))[1] or "look at the file system and try again"
