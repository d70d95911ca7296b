"""Where things are: a path or URL, taken apart, joined, and shown without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from melisma.errors import ConfigError, printable

__all__ = ["StoreUrl", "display", "parse", "split_glob"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CREDENTIALS = re.compile(r"([^/?]*):(?!\d+(?:/|$)).*@|[^/?@:]*@", re.DOTALL)
_QUERY_VALUE = re.compile(r"(?<==)[^&]*")
_WILDCARD = re.compile(r"[*?\[]")
# The scheme's spelling in melisma, for each spelling that users know.
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
# A name before "@" is no secret here: the container of an Azure account, the user of a server.
_NAMED_USER = frozenset({"abfs", "abfss", "sftp"})


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """One place in one store.

    Attributes:
        scheme: `file`, `s3`, `gs`, ... in melisma's spelling (`gcs` is `gs`).
        bucket: the bucket, container or host; empty for `file`.
        path: below the bucket, without a leading slash; for `file` the absolute path.
    """

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        """The URL; a local place is shown as its plain path."""
        return self.path if self.scheme == "file" else f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/")

    def join(self, *parts: str) -> StoreUrl:
        """The place below this one. Parts are relative, with "/" between their segments."""
        segments = [segment for part in parts for segment in part.split("/") if segment]
        if not segments:
            return self
        return replace(self, path="/".join([self.path.rstrip("/"), *segments] if self.path else segments))


def parse(text: str, *, setting: str = "destination_path") -> StoreUrl:
    """Take a plain path (relative and `~` too) or a URL apart.

    Raises:
        ConfigError: it is empty, has no bucket, or carries a password; `setting` is named.
    """
    if not text.strip() or "\x00" in text:
        raise ConfigError(
            setting, "is not a path or URL", "Set a path such as ./lake, or a URL such as s3://bucket/lake"
        )
    match = _SCHEME.fullmatch(text)
    if match is None:
        return StoreUrl("file", "", str(_absolute(text)))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise ConfigError(setting, "a file URL names a host", "Write file:///absolute/path, or a plain path")
        return StoreUrl("file", "", str(_absolute("/" + unquote(path))))
    credentials = _CREDENTIALS.match(rest)
    if credentials is not None and (credentials[1] is not None or scheme not in _NAMED_USER):
        raise ConfigError(setting, "credentials stand in the URL", 'Put them in "storage_options"')
    bucket, _, path = rest.partition("/")
    if not bucket:
        raise ConfigError(setting, f"{scheme}:// names no bucket", f"Write {scheme}://bucket/path")
    return StoreUrl(_ALIASES.get(scheme, scheme), bucket, path.strip("/"))


def display(text: str) -> str:
    """A path or URL as it may be shown: one line, credentials and the values of a query replaced by `***`."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        return printable(text, 1000)
    scheme, rest = match[1], match[2]
    credentials = _CREDENTIALS.match(rest)
    if credentials is not None and (credentials[1] is not None or scheme.lower() not in _NAMED_USER):
        rest = "***@" + rest[credentials.end() :]
    place, mark, query = rest.partition("?")
    if mark and "=" in query:
        query = _QUERY_VALUE.sub("***", query)
    return printable(f"{scheme}://{place}{mark}{query}", 1000)


def split_glob(text: str) -> tuple[str, str]:
    """Split a path or URL with wildcards into its fixed directory and the pattern below it.

    The directory is what `open_store` takes, the pattern what `Store.glob` takes; a path without wildcards
    gives its parent and its name: `data/2024/*.csv` -> (`data/2024`, `*.csv`).
    """
    match = _SCHEME.fullmatch(text)
    head, rest = (f"{match[1]}://", match[2]) if match else ("", text)
    wildcard = _WILDCARD.search(rest)
    cut = rest.rfind("/", 0, wildcard.start() if wildcard else len(rest.rstrip("/")))
    directory, pattern = rest[: cut + 1], rest[cut + 1 :]
    if head and "/" not in directory.lstrip("/") and not directory:
        return text, "**"  # a bucket alone: everything in it
    return (head + (directory.rstrip("/") or directory)) or ".", pattern


def _absolute(text: str) -> Path:
    path = Path(text)
    try:
        path = path.expanduser()
    except RuntimeError:  # "~name" of no known user is taken as a name
        path = Path(text)
    return Path.cwd().joinpath(path)
