"""Names of files that a file names: each has to be one in its own folder, and one that a file system can have."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

# In UTF-8; the limit of nearly all file systems.
LONGEST_NBYTES = 255


def is_plain_name(name: Any) -> bool:
    """Whether it can only be the name of an entry of the folder that it is looked for in."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(mark in name for mark in "\0\\/"):
        return False
    with suppress(UnicodeEncodeError):
        return len(name.encode()) <= LONGEST_NBYTES
    return False
