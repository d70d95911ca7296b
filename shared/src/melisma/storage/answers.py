"""What the answers of object stores mean, in plain words: of S3 and its like, GCS and Azure, whichever library asks.

A library's own text may quote a signed address, so only what is recognised in it is passed on.
"""

from __future__ import annotations

import logging
import re

from melisma.errors import StorageError
from melisma.storage.store import refused

__all__ = ["code_of", "is_final", "is_unreachable", "refusal"]

_LOG = logging.getLogger(__name__)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_QUERY = re.compile(r"\?[^\s,]+")

_BUCKET = ("there is no such bucket or container", "Check its name, the region and the endpoint, or create it")
_CREDENTIALS = ("the store does not accept these credentials", "Check the credentials")
_DENIED = ("the store denies access", "Check the credentials and what they may do")
_EXISTS = ("it exists already, and is not overwritten", "Another run wrote it: check that one run is active")
_EXPIRED = ("the credentials have expired", "Renew them, then run it again")
_REGION = ("the bucket is in another region", 'Set "region" in "storage_options" to the bucket\'s')
_REVOKED = ("its upload was revoked, as by another run that has taken over", "Let only one run of a pipeline be active")
_UNABLE = ("the store cannot do this", "Use a store, or a version of its server, that can")
_UNREACHABLE = ("the store cannot be reached", "Check the endpoint and the network")

_CODES = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AuthenticationFailed": _CREDENTIALS,
    "AuthorizationFailure": _DENIED,
    "AuthorizationHeaderMalformed": _REGION,
    "AuthorizationPermissionMismatch": _DENIED,
    "BlobAlreadyExists": _EXISTS,
    "ConditionalRequestConflict": _EXISTS,
    "ContainerNotFound": _BUCKET,
    "ExpiredToken": _EXPIRED,
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidBucketName": ("the bucket's name is not valid", "Check it"),
    "InvalidToken": _CREDENTIALS,
    "MissingRegion": _REGION,
    "NoSuchBucket": _BUCKET,
    "NoSuchKey": ("it does not exist", "Check the path"),
    "NoSuchUpload": _REVOKED,
    "NotImplemented": _UNABLE,
    "PermanentRedirect": _REGION,
    "PreconditionFailed": _EXISTS,
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock"),
    "SignatureDoesNotMatch": _CREDENTIALS,
    "TokenRefreshRequired": _EXPIRED,
    "XAdminUserNotFound": _CREDENTIALS,  # of versitygw
    "XMinioStorageFull": ("no space is left in the store", "Free some space, then run it again"),
}
_STATUSES = {301: _REGION, 307: _REGION, 401: _CREDENTIALS, 403: _DENIED, 501: _UNABLE}


def code_of(error: BaseException) -> str:
    """The store's own code for what went wrong (`NoSuchBucket`), or an empty string."""
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    match = _CODE.search(str(error))
    return match[1] if match else ""


def is_unreachable(error: BaseException) -> bool:
    """Whether no connection came about, at least at the last try."""
    return "kind: Connect" in str(error) or type(error).__name__ in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ProxyConnectionError",
        "SSLError",
    )


def is_final(error: BaseException) -> bool:
    """Whether the store has said no: it did not happen, and would not if it was tried again."""
    return _meaning(error) is not None or (400 <= _status(error) < 500 and _status(error) not in (408, 429))


def refusal(action: str, where: str, error: Exception) -> StorageError:
    """The StorageError that says what a library's error means.

    Args:
        action: what was tried.
        where: on what, without credentials.
        error: of obstore, botocore or the system.
    """
    _LOG.debug("%s %s: %s", action, where, _QUERY.sub("?***", str(error).partition("\n")[0]))
    meaning = _meaning(error)
    if meaning is None and is_unreachable(error):
        meaning = _UNREACHABLE
    if meaning is not None:
        return StorageError(action, where, *meaning)
    if isinstance(error, OSError):
        return refused(action, where, error)
    status = _status(error)
    if status:
        return StorageError(action, where, f"the store answers with status {status}", "Run it again")
    return StorageError(action, where, "the store does not answer as it should", "Run it again")


def _meaning(error: BaseException) -> tuple[str, str] | None:
    if "configured region" in str(error):  # obstore's words for a redirect without an address
        return _REGION
    name = type(error).__name__
    by_name = {
        "PermissionDeniedError": _DENIED,
        "UnauthenticatedError": _CREDENTIALS,
        "AlreadyExistsError": _EXISTS,
        "NotSupportedError": _UNABLE,
        "InvalidPathError": ("a name there cannot be used, as one with two slashes in a row", "Rename the object"),
    }.get(name)
    return _CODES.get(code_of(error)) or _STATUSES.get(_status(error)) or by_name


def _status(error: BaseException) -> int:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    match = _STATUS.search(str(error))
    return int(match[1]) if match else 0
