"""Why something is done, or is not as it should be: a code for programs and words for people.

Whatever decides looks at the code alone; the words may change in any release. The codes are those of the log,
the event stream, `status --json` and the label `reason` of the metrics, so a code is never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. Empty (and false) where there is nothing to say."""

    code: str = ""
    """Words with hyphens, such as `peer-unreachable`: one of few, with nothing of the case in it."""
    words: str = ""
    """One line for people, with the details of the case. What a peer sent in it is made printable before."""

    def __str__(self) -> str:
        return self.words

    def __bool__(self) -> bool:
        return bool(self.code or self.words)


NONE = Reason()
