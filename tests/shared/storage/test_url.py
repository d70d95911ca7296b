"""Paths and URLs: taken apart the same way everywhere, and never shown with a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.errors import ConfigError
from melisma.storage.url import StoreUrl, display, parse, split_glob


def test_local_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plain, relative, home and file:// paths are one kind of place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    here = str(tmp_path)
    assert parse("lake") == StoreUrl("file", "", f"{here}/lake")
    assert parse("~/lake") == StoreUrl("file", "", "/home/ada/lake")
    assert parse("/a/b") == parse("file:///a/b") == parse("file://localhost/a/b") == StoreUrl("file", "", "/a/b")
    assert parse("file:///a%20b").path == "/a b"
    assert parse("a%20b").path == f"{here}/a%20b"


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "path"),
    [
        ("s3://bucket/a/b/", "s3", "bucket", "a/b"),
        ("S3A://bucket", "s3", "bucket", ""),
        ("gcs://b/x", "gs", "b", "x"),
        ("abfss://box@account.dfs.core.windows.net/x", "az", "box@account.dfs.core.windows.net", "x"),
        ("sftp://ada@host:22/x", "sftp", "ada@host:22", "x"),
    ],
)
def test_remote_places(text: str, scheme: str, bucket: str, path: str) -> None:
    """Scheme, bucket and path; other spellings of a scheme are the same scheme."""
    assert parse(text) == StoreUrl(scheme, bucket, path)


@pytest.mark.parametrize("text", ["", " ", "a\x00b", "s3://", "s3:///x", "file://host/x", "file://relative"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """The setting is named."""
    with pytest.raises(ConfigError, match='setting "path"'):
        parse(text, setting="path")


SECRETS = [
    "s3://KEY:hun/ter2@bucket/x",
    "s3://KEY:hunter2@bucket/x",
    "sftp://ada:hunter2@host/x",
    "https://hunter2@host/x",
    "az://box/x?sig=hunter2&se=2024",
    "ftp://ada:hun@ter2@host/x",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_not_shown(text: str) -> None:
    """Passwords, keys with slashes or at-signs, and signatures are replaced."""
    for secret in ("hunter2", "hun/", "ter2"):
        assert secret not in display(text)
    assert "***" in display(text)


@pytest.mark.parametrize("text", [text for text in SECRETS if "?" not in text])
def test_credentials_in_a_url_are_refused_without_showing_them(text: str) -> None:
    """They belong in storage_options."""
    with pytest.raises(ConfigError, match="storage_options") as error:
        parse(text)
    assert "ter2" not in str(error.value)


@pytest.mark.parametrize("text", ["/data/a@b:c@d?x=1", "s3://bucket/a:b", "sftp://ada@host/x", "s3://b/day=?/*.csv"])
def test_what_holds_no_secret_is_shown_as_it_is(text: str) -> None:
    """Also paths with the same signs in them."""
    assert display(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data/2024/*.csv", ("data/2024", "*.csv")),
        ("data/a.csv", ("data", "a.csv")),
        ("a.csv", (".", "a.csv")),
        ("*/x.csv", (".", "*/x.csv")),
        ("/a.csv", ("/", "a.csv")),
        ("/data/d?/[ab].csv", ("/data", "d?/[ab].csv")),
        ("s3://bucket/in/**/*.csv", ("s3://bucket/in", "**/*.csv")),
        ("s3://bucket/*.csv", ("s3://bucket", "*.csv")),
        ("s3://bucket", ("s3://bucket", "**")),
        ("file:///data/*.csv", ("file:///data", "*.csv")),
        ("file:///a.csv", ("file:///", "a.csv")),
    ],
)
def test_a_glob_is_split_at_its_first_wildcard(text: str, expected: tuple[str, str]) -> None:
    """The fixed directory is the store's root, the rest the pattern."""
    assert split_glob(text) == expected


@given(st.lists(st.sampled_from(["a", "b c", "x/y", "", "/"]), max_size=4))
def test_join_stays_below(parts: list[str]) -> None:
    """Joining relative parts never leaves the place, nor doubles a slash."""
    joined = StoreUrl("s3", "bucket", "root").join(*parts)
    assert joined.path == "root" or joined.path.startswith("root/")
    assert "//" not in joined.path
