"""Each option reaches the server: seen in the requests, or in that nothing else could have reached it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from places import Place
from servers import AZURE_ACCOUNT, CACHE

from melisma.errors import ConfigError, StorageError
from melisma.storage.filesystem import Store, open_store


def open_at(place: Place, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Store:
    """The store of a place, with more options."""
    for name, value in place.credentials.items():
        monkeypatch.setenv(name, value)
    return open_store(place.url, place.options | options, distribution="melisma-test")


def round_trip(store: Store) -> None:
    """Publish a file, list and read it."""
    staged = store.stage("_tmp/x", "a/x.bin")
    staged.write(b"abc")
    staged.close()
    store.publish(staged)
    assert [info.path for info in store.glob("a/*")] == ["a/x.bin"]
    assert store.read_bytes("a/x.bin") == b"abc"
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
def test_all_requests_go_through_a_proxy(
    scheme: str, new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both libraries: the address itself leads nowhere."""
    place = new_place(scheme)
    proxy = new_proxy(place.endpoint)
    nowhere = "http://127.0.0.1:1"
    address = f"{nowhere}/{AZURE_ACCOUNT}" if scheme == "az" else nowhere
    round_trip(open_at(place, monkeypatch, endpoint_url=address, proxy_url=proxy.endpoint))
    assert len(proxy.seen) >= 4
    assert all(headers["host"] == "127.0.0.1:1" for _, headers in proxy.seen)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority that nobody knows: the file of its certificate, and the context of a server on 127.0.0.1."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
        made = x509.CertificateBuilder().subject_name(_named(name)).issuer_name(_named("root")).public_key(key)
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        for extension in extensions:
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return made.sign(root, hashes.SHA256())

    file, both = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority = certificate("root", root.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = certificate("server", leaf.public_key(), names, x509.BasicConstraints(ca=False, path_length=None))
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both.write_bytes(leaf.private_bytes(*kind) + server.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return file, context


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
def test_a_private_authority_is_trusted_where_it_is_named(
    scheme: str,
    new_place: Callable[[str], Place],
    new_proxy: Callable[..., Any],
    authority: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By both libraries, and by neither without it."""
    file, context = authority
    place = new_place(scheme)
    tls = Place(scheme, new_proxy(place.endpoint, context).endpoint, place.bucket)
    round_trip(open_at(tls, monkeypatch, ca_file=str(file)))
    monkeypatch.setattr("melisma.storage.object_store.CONNECTION", QUICK)
    monkeypatch.setattr("melisma.storage.s3.CONNECTION", QUICK)
    with pytest.raises(StorageError, match="the store cannot be reached"):
        open_at(tls, monkeypatch).glob("*")


QUICK: dict[str, Any] = {"client_options": {}, "retry_config": {"max_retries": 0}}


def test_a_file_of_certificates_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which setting names it."""
    options = {"access_key_id": "a", "secret_access_key": "b", "ca_file": "/no/such/file"}
    with pytest.raises(ConfigError, match=r"storage_options.ca_file.*cannot be read"):
        open_store("s3://bucket/x", options, distribution="melisma-test")
    with pytest.raises(ConfigError, match=r"storage_options.ca_file.*cannot be read"):
        open_store("gs://bucket/x", {"ca_file": "/no/such/file"}, distribution="melisma-test")


def test_encryption_and_the_payer_are_asked_for(
    new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encryption where an object begins, by either library; who pays on every request."""
    place = new_place("s3")
    proxy = new_proxy(place.endpoint)
    seen = Place("s3", proxy.endpoint, place.bucket)
    key = {"server_side_encryption": "aws:kms", "kms_key_id": "key-1"}
    store = open_at(seen, monkeypatch, requester_pays=True, **key)
    round_trip(store)
    store.delete("a/x.bin")
    assert all(headers["x-amz-request-payer"] == "requester" for _, headers in proxy.seen)
    begins = [headers for request, headers in proxy.seen if request.startswith("POST") and "?uploads" in request]
    assert [headers["x-amz-server-side-encryption"] for headers in begins] == ["aws:kms"]
    assert [headers["x-amz-server-side-encryption-aws-kms-key-id"] for headers in begins] == ["key-1"]
    proxy.seen.clear()
    store.objects.put("created", b"x", mode="create")
    assert proxy.seen[-1][1]["x-amz-server-side-encryption"] == "aws:kms"


def test_a_key_of_ones_own_goes_with_every_request_for_content(
    new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either library, with its sum; none of the servers here encrypts, so what they are asked is what is tested."""
    place = new_place("s3")
    proxy = new_proxy(place.endpoint)
    key = bytes(range(32))
    text = base64.b64encode(key).decode()
    store = open_at(Place("s3", proxy.endpoint, place.bucket), monkeypatch, customer_key=text)
    round_trip(store)
    store.objects.put("some/lake/created", b"x", mode="create")
    assert store.size("created") == 1
    wanted = {
        "algorithm": "AES256",
        "key": text,
        "key-md5": base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode(),
    }
    content = [
        (request, headers)
        for request, headers in proxy.seen
        if ("/some/lake/" in request and not request.startswith("DELETE") and "uploadId=" not in request)
        or "partNumber=" in request
    ]
    assert {request.partition(" ")[0] for request, _ in content} == {"POST", "PUT", "GET", "HEAD"}
    for request, headers in content:
        found = {name: headers.get(f"x-amz-server-side-encryption-customer-{name}") for name in wanted}
        assert found == wanted, request


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"customer_key": "hunter2"}, "is not a key"),
        ({"customer_key": "aHVudGVyMg=="}, "is not a key"),
        ({"customer_key": "A" * 43 + "=", "server_side_encryption": "AES256"}, "Set one of the two"),
    ],
)
def test_a_key_of_ones_own_that_cannot_be_is_refused(options: dict[str, str], message: str) -> None:
    """Without the key."""
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    with pytest.raises(ConfigError, match=message) as error:
        open_store("s3://b/x", keys | options, distribution="melisma-test")
    assert not any(value in str(error.value) for name, value in options.items() if name == "customer_key")


def test_encryption_that_cannot_be_is_refused() -> None:
    """The valid values are listed; a key wants KMS."""
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    with pytest.raises(ConfigError, match="Valid values: AES256, aws:kms"):
        open_store("s3://b/x", {**keys, "server_side_encryption": "rot13"}, distribution="melisma-test")
    with pytest.raises(ConfigError, match="kms_key_id"):
        open_store("s3://b/x", {**keys, "kms_key_id": "k"}, distribution="melisma-test")


def test_a_bucket_stands_in_the_path_or_in_the_host(
    new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the path unless it is AWS; by both libraries alike."""
    place = new_place("s3")
    for virtual, host in ((None, "s3.invalid"), (True, f"{place.bucket}.s3.invalid"), (False, "s3.invalid")):
        proxy = new_proxy(place.endpoint)
        proxy.answer, proxy.times = (".", 404, b"<Error><Code>NoSuchBucket</Code></Error>"), 100
        more = {} if virtual is None else {"virtual_hosted": virtual}
        store = open_at(place, monkeypatch, endpoint_url="http://s3.invalid", proxy_url=proxy.endpoint, **more)
        with pytest.raises(StorageError, match="there is no such bucket"):
            store.glob("*")
        with pytest.raises(StorageError, match="there is no such bucket"):
            list(store.unfinished())
        assert {headers["host"] for _, headers in proxy.seen} == {host}
        paths = [urlsplit(request.partition(" ")[2]).path for request, _ in proxy.seen]
        assert all(path.startswith(f"/{place.bucket}") for path in paths) is (virtual is not True)


def test_anonymous_requests_carry_no_signature(
    new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either library, though credentials are at hand; and the server's refusal is one sentence."""
    place = new_place("s3")
    proxy = new_proxy(place.endpoint)
    store = open_at(Place("s3", proxy.endpoint, place.bucket), monkeypatch, anonymous=True)
    with pytest.raises(StorageError, match=r"denies access|does not accept these credentials"):
        store.glob("*")
    with pytest.raises(StorageError, match=r"denies access|does not accept these credentials"):
        list(store.unfinished())
    assert proxy.seen
    assert not any("authorization" in headers for _, headers in proxy.seen)


@pytest.mark.parametrize("scheme", ["az", "gs"])
def test_anonymous_requests_of_the_other_stores_carry_none_either(
    scheme: str, new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azurite refuses them in one sentence; the Google server wants no token of anybody."""
    place = new_place(scheme)
    proxy = new_proxy(place.endpoint)
    seen = Place(scheme, proxy.endpoint, place.bucket)
    options = {key: value for key, value in seen.options.items() if key != "token_file"}
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
    store = open_store(place.url, {**options, "anonymous": True}, distribution="melisma-test")
    if scheme == "az":
        with pytest.raises(StorageError, match=r"denies access|does not accept these credentials"):
            store.glob("*")
    else:
        assert store.glob("*") == []
    assert proxy.seen
    assert not any("authorization" in headers for _, headers in proxy.seen)


def test_the_region_is_in_every_signature(
    new_place: Callable[[str], Place], new_proxy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both libraries, by setting or environment; the server, which is in another one, says so (boto3 goes there)."""
    place = new_place("s3")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    for options, region in (({"region": "eu-central-1"}, "eu-central-1"), ({}, "eu-west-3")):
        proxy = new_proxy(place.endpoint)
        store = open_at(Place("s3", proxy.endpoint, place.bucket), monkeypatch, **options)
        with pytest.raises(StorageError, match="the bucket is in another region"):
            store.glob("*")
        assert all(f"/{region}/s3/aws4_request" in headers["authorization"] for _, headers in proxy.seen)
        proxy.seen.clear()
        assert list(store.unfinished()) == []
        assert f"/{region}/s3/aws4_request" in proxy.seen[0][1]["authorization"]
    assert open_at(place, monkeypatch, region="us-east-1").glob("*") == []


def test_credentials_come_from_a_profile(
    new_place: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files that AWS's tools use; the one named, not the default."""
    place = new_place("s3")
    keys = place.credentials
    file = tmp_path / "credentials"
    text = "[default]\naws_access_key_id = no\naws_secret_access_key = no\n\n[mine]\naws_access_key_id = {}\n"
    text += "aws_secret_access_key = {}\n"
    file.write_text(text.format(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    round_trip(open_store(place.url, place.options | {"profile": "mine"}, distribution="melisma-test"))
    with pytest.raises(StorageError, match="does not accept these credentials") as error:
        open_store(place.url, place.options, distribution="melisma-test").glob("*")
    assert place.url in str(error.value)


def test_a_web_server_may_want_a_proxy(service: Callable[[str], str], new_proxy: Callable[..., Any]) -> None:
    """The options of http:// are the network's only."""
    address, name = service("http"), uuid.uuid4().hex
    (CACHE / "data" / "http" / name).write_bytes(b"abc")
    proxy = new_proxy(address)
    store = open_store("http://files.invalid/", {"proxy_url": proxy.endpoint}, distribution="melisma-test")
    assert store.read_bytes(name) == b"abc"
    with pytest.raises(ConfigError, match="Valid keys: proxy_url, ca_file"):
        open_store("http://files.invalid/", {"token": "x"}, distribution="melisma-test")
