"""The grammar of addresses: which schemes there are, what an address is called, what of it may be shown."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import posixpath
import re
from urllib.parse import unquote, urlsplit, urlunsplit

from exporter.errors import UsageError

# With the extra that brings the client; `memory` is fsspec's own, for tests.
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "memory": "s3",
}
# The module that each extra brings.
CLIENTS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
# Year and month of the oldest that are known to work, as in pyproject.toml.
OLDEST = {"s3fs": (2025, 2), "gcsfs": (2025, 2), "adlfs": (2024, 12)}
WEB = ("http", "https")
# The container, not a user: `abfs://container@account.dfs.core.windows.net/path`.
NAMES_CONTAINER = ("abfs", "abfss")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def is_address(text: str) -> bool:
    """Whether it names a place beyond this machine; `file://` and paths do not."""
    found = ADDRESS.match(text)
    return found is not None and found[1].lower() != "file"


def local(text: str) -> str:
    """The path that a `file://` address means; any other text is what it was. Raises UsageError."""
    if not text.lower().startswith("file://"):
        return text
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        why = f"it names another machine, {parts.netloc}"
        raise UsageError("is no file of this machine", where=text, why=why, hint="file:///path, with three slashes")
    return unquote(parts.path)


def scheme_of(address: str) -> str:
    found = ADDRESS.match(address)
    return found[1].lower() if found else ""


def public(address: str) -> str:
    """Without what may be secret: user, password, query (presigned addresses have their signature there), fragment."""
    parts = urlsplit(address)
    host = parts.netloc
    if parts.scheme not in NAMES_CONTAINER:
        host = host.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def redacted(text: str) -> str:
    """A message of somebody else's with no more of each address in it than `public` shows."""
    return IN_TEXT.sub(lambda found: public(found[0]), text)


def joined(address: str, *names: str) -> str:
    return "/".join([address.rstrip("/"), *names])


def place_in(output: str, name: str) -> str:
    """A folder or file inside of a place for exports, be it a folder of this machine or an address."""
    return joined(output, name) if is_address(output) else os.path.join(local(output), name)


def file_name(address: str) -> str:
    """The last part of an address as a name for a file on this machine."""
    name = posixpath.basename(urlsplit(address).path.rstrip("/"))
    return unquote(name).replace("/", "_").replace("\0", "_").strip(".") or "source"


def beside(address: str, name: str) -> str:
    """The address of another file in the same folder; a signature in the query would not fit to it."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc, posixpath.join(posixpath.dirname(parts.path), name), "", ""))


def check_source(address: str) -> None:
    """Raises UsageError for a kind of address that cannot be read."""
    if scheme_of(address) not in (*EXTRAS, *WEB):
        raise _unknown(address, (*EXTRAS, *WEB))
    _check_host(address)


def check_output(address: str) -> None:
    """Raises UsageError for an address that nothing can be written to, also where its client is not installed."""
    scheme, parts = scheme_of(address), urlsplit(address)
    if scheme in WEB:
        hint = "an object store (s3://bucket/prefix), or a folder"
        raise UsageError("cannot be written", where=public(address), why="web servers take no exports", hint=hint)
    if scheme not in EXTRAS:
        raise _unknown(address, EXTRAS)
    _check_host(address)
    if "@" in parts.netloc and scheme not in NAMES_CONTAINER:
        hint = "environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise UsageError(
            "has credentials in it", where=public(address), why="they would be in every message", hint=hint
        )
    if parts.query or parts.fragment:
        raise UsageError("cannot be written", where=public(address), why="it has a query", hint="leave out ?… and #…")
    check_client(scheme)


def check_client(scheme: str) -> None:
    """Raises UsageError where what reaches the stores of a scheme is missing, or too old to write as we need it to."""
    if scheme == "memory":
        return
    client = CLIENTS[EXTRAS[scheme]]
    if importlib.util.find_spec(client) is None:
        raise no_client(scheme, client)
    try:
        version = importlib.metadata.version(client)
    except importlib.metadata.PackageNotFoundError:
        return
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST[client]:
        why = f"{client} {version} is too old, {'.'.join(map(str, OLDEST[client]))} is the oldest that will do"
        hint = f"pip install --upgrade 'export-model[{EXTRAS[scheme]}]'"
        raise UsageError("cannot be used", where=f"{scheme}://", why=why, hint=hint)


def no_client(scheme: str, module: str) -> UsageError:
    """What reaches the stores of a scheme is not there."""
    hint = f"pip install 'export-model[{EXTRAS[scheme]}]'"
    return UsageError("cannot be used", where=f"{scheme}://", why=f"{module} is not installed", hint=hint)


def _check_host(address: str) -> None:
    if not urlsplit(address).netloc.rpartition("@")[2] and scheme_of(address) != "memory":
        raise UsageError("names no bucket or server", where=public(address), hint="such as s3://bucket/prefix")


def _unknown(address: str, known: object) -> UsageError:
    names = ", ".join(f"{name}://" for name in known if name not in ("memory", "s3a", "gcs"))  # type: ignore[attr-defined]
    return UsageError(
        "is an unknown kind of address", where=public(address), why=f"there are {names}", hint="or give a path"
    )
