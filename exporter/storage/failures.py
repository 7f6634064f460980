"""What goes wrong with a store or a web server, as errors that say what to try; nothing secret gets into them."""

from __future__ import annotations

import errno
import os
import sys

from exporter.errors import LostOutputError, LostSourceError, OutputError, SourceError
from exporter.storage.addresses import public, redacted, scheme_of

# The errors of the clients that are no OSError; a client that was not imported has raised none.
FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "gcsfs.retry": ("HttpError",),
    "fsspec.exceptions": ("FSTimeoutError",),
    "http.client": ("HTTPException",),
}
NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "CredentialRetrievalError",
}
NO_CONNECTION = {
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ConnectTimeoutError",
    "ConnectionRefusedError",
    "EndpointConnectionError",
    "ServiceRequestError",
    "gaierror",
}
BROKEN = {
    "ClientPayloadError",
    "ConnectionClosedError",
    "ConnectionResetError",
    "FSTimeoutError",
    "HTTPClientError",
    "IncompleteRead",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "TimeoutError",
}
# What s3fs makes of 500 and 503.
OUT_OF_ORDER = (getattr(errno, "EREMOTEIO", errno.EIO), errno.EBUSY)
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "az": "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
ENDPOINTS = {
    "s3": "check the network, and AWS_ENDPOINT_URL for a store of your own",
    "gs": "check the network, and STORAGE_EMULATOR_HOST if it is set",
}
# Of environment variables whose values must never be shown.
SECRET = ("SECRET", "TOKEN", "PASSWORD", "_KEY", "CONNECTION_STRING", "ACCESS_KEY_ID")
LONGEST_WHY = 300


def failures() -> tuple[type[BaseException], ...]:
    """What a client may raise, for `except failures() as error`."""
    found: list[type[BaseException]] = [OSError]
    for module, names in FOREIGN.items():
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)


def source_error(error: BaseException, address: str) -> SourceError:
    why, hint = _explained(error, address)
    kind = LostSourceError if _may_pass(error) else SourceError
    return kind("cannot be read", where=public(address), why=why, hint=hint)


def output_error(error: BaseException, address: str) -> OutputError:
    why, hint = _explained(error, address)
    kind = LostOutputError if _may_pass(error) else OutputError
    return kind("cannot be written", where=public(address), why=why, hint=hint)


def _may_pass(error: BaseException) -> bool:
    """Whether the connection broke, or the server was out of order or too busy."""
    return bool(_kinds(error) & (NO_CONNECTION | BROKEN)) or getattr(error, "errno", None) in OUT_OF_ORDER


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}


def _explained(error: BaseException, address: str) -> tuple[str, str]:
    """Why, and what to try."""
    kinds = _kinds(error)
    said = _said(error)
    family = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}.get(scheme_of(address), scheme_of(address))
    again = "run it again: what is finished is skipped"
    if kinds & NO_CREDENTIALS:
        return "no credentials were found", CREDENTIALS.get(family, "check the credentials")
    if kinds & NO_CONNECTION:
        return f"no connection: {said}", ENDPOINTS.get(family, "check the address and the network")
    if isinstance(error, PermissionError):
        return f"permission denied: {said}", "check what the credentials allow"
    if isinstance(error, FileNotFoundError):
        is_bucket = "bucket does not exist" in said.lower() or "NoSuchBucket" in str(error.__cause__)
        what = said if is_bucket else "nothing is there"
        return what, "check the bucket's name, or make the bucket" if is_bucket else "check the address"
    if kinds & BROKEN:
        return f"the connection broke: {said}", again
    return said, again


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found and len(found) < 8:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _said(error: BaseException) -> str:
    """The first line of the client's own words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = redacted(str(text).strip().splitlines()[0])
    for name, value in os.environ.items():
        if len(value) >= 6 and any(word in name.upper() for word in SECRET):
            text = text.replace(value, "…")
    return text[:LONGEST_WHY]
