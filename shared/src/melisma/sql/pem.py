"""Certificates and keys in settings: a path, or the PEM text itself."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from melisma.errors import ConfigError

__all__ = ["pem_file"]


def pem_file(setting: str, value: str, owner: str) -> str:
    """A path: that which is given, or that of a private file with what is given, which goes when the process ends.

    Args:
        setting: the setting's name, for messages.
        value: what it says.
        owner: whose file it is: how the folder's name begins.

    Raises:
        ConfigError: there is no such file.
    """
    if value.lstrip().startswith("-----BEGIN"):
        folder = Path(tempfile.mkdtemp(prefix=f"{owner}-"))  # for this user only
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / setting
        path.touch(mode=0o600)
        path.write_text(value.strip() + "\n", encoding="utf-8")
        return str(path)
    path = Path(value).expanduser()
    if not path.is_file():
        raise ConfigError(setting, "there is no such file", "Set a path, or the PEM text itself")
    return str(path)
