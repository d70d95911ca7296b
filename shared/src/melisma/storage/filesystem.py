"""One way to open storage: local directories, object stores, and servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melisma.errors import ConfigError, MissingExtra
from melisma.storage import options as storage_options
from melisma.storage.local import LocalStore
from melisma.storage.store import FileInfo, StagedObject, Store
from melisma.storage.url import StoreUrl, parse

__all__ = ["FileInfo", "StagedObject", "Store", "open_store"]


def open_store(
    url: str, options: Mapping[str, Any] | None, *, distribution: str, setting: str = "destination_path"
) -> Store:
    """Open the store whose root is `url`: a plain path (relative and `~` too) or a URL.

    Nothing is read or created yet. For a path with wildcards see `melisma.storage.url.split_glob`.

    Args:
        url: the root; everything the store does is below it.
        options: the setting `storage_options`: melisma's own keys, see `melisma.storage.options`.
        distribution: the connector's own distribution, which a missing extra is to be installed with.
        setting: the setting that `url` came from, for messages.

    Raises:
        ConfigError: the URL or an option cannot work.
        MissingExtra: the backend of this scheme is not installed.
    """
    root = parse(url, setting=setting)
    if root.scheme not in storage_options.BACKENDS:
        schemes = ", ".join(f"{name}://" for name in storage_options.BACKENDS if name != "memory")
        raise ConfigError(setting, f'the scheme "{root.scheme}" is not known', f"Use a path or one of: {schemes}")
    arguments = storage_options.backend_arguments(root.scheme, options)
    store = _open(root, arguments, distribution)
    store.distribution = distribution
    return store


def _open(root: StoreUrl, arguments: Mapping[str, Any], distribution: str) -> Store:
    if root.scheme == "file":
        return LocalStore(root)
    try:
        # Imported here: a local lake does not pay for them, and they need not be installed.
        match root.scheme:
            case "s3":
                from melisma.storage.s3 import open_s3

                return open_s3(root, arguments)
            case "sftp":
                from melisma.storage.sftp import open_sftp

                return open_sftp(root, arguments)
            case _:
                from melisma.storage.object_store import open_object_store

                return open_object_store(root, arguments)
    except ImportError:
        extra = storage_options.BACKENDS[root.scheme].extra
        raise MissingExtra(f"access to {root.scheme}://", distribution, extra) from None
