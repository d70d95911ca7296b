"""What object stores answer is said in plain words, whichever library asks, and never with what they quote."""

from __future__ import annotations

from typing import Any

import pytest

from melisma.errors import StorageError
from melisma.lake.objects import Exists, NoReply, objects_of
from melisma.storage.filesystem import Store, open_store

QUOTED = "quoted-by-the-server"


@pytest.fixture
def store(s3_server: Any, faulty_proxy: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket behind the proxy."""
    for name, value in s3_server.credentials.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_server.new_bucket()}/lake"
    return open_store(url, {"endpoint_url": faulty_proxy.endpoint}, distribution="melisma-test")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "AuthorizationHeaderMalformed", "in another region"),
        (301, "PermanentRedirect", "in another region"),
        (403, "AccessDenied", "denies access"),
        (403, "ExpiredToken", "have expired"),
        (403, "InvalidAccessKeyId", "does not accept these credentials"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (403, "SignatureDoesNotMatch", "does not accept these credentials"),
        (404, "NoSuchBucket", "no such bucket"),
    ],
)
def test_a_refusal_is_said_in_plain_words(
    store: Store, faulty_proxy: Any, status: int, code: str, message: str
) -> None:
    """Of data (boto3 and obstore) and of the journal (obstore) alike; answers as S3 gives them, moto does not."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{QUOTED}</Message></Error>"
    faulty_proxy.answer, faulty_proxy.times = (".", status, text.encode()), 1000
    objects = objects_of(store)

    def write() -> None:
        staged = store.stage("", "x")
        staged.close()
        store.publish(staged)

    actions = [
        write,
        lambda: list(store.unfinished()),
        lambda: store.glob("a*"),
        lambda: objects.put_if_absent("a", b"1"),
        lambda: list(objects.list("a/")),
    ]
    if status != 404:  # what is not there is deleted
        actions += [lambda: objects.delete("a"), lambda: store.delete("a")]
    for action in actions:
        with pytest.raises(StorageError, match=message) as error:
            action()
        assert QUOTED not in str(error.value)
        assert "\n" not in str(error.value)


def test_an_answer_that_leaves_it_open_is_no_refusal(store: Store, faulty_proxy: Any) -> None:
    """After 500 nobody knows: the journal looks what is there, instead of believing that nothing is."""
    faulty_proxy.answer, faulty_proxy.times = ("PUT", 500, b""), 1000
    with pytest.raises(NoReply):
        objects_of(store).put_if_absent("a", b"1")


def test_a_lost_answer_to_a_create_does_not_create_twice(store: Store, faulty_proxy: Any) -> None:
    """The library tries again by itself; then the object is there, and it is one's own or not: `Exists`."""
    objects = objects_of(store)
    faulty_proxy.lose = "PUT"
    with pytest.raises((NoReply, Exists)):
        objects.put_if_absent("a", b"1")
    assert objects.get("a") == b"1"


def test_a_lost_answer_to_publishing_is_found_out(store: Store, faulty_proxy: Any) -> None:
    """The second try finds its own file there, by its ETag, and is content."""
    staged = store.stage("", "x")
    staged.write(b"abc")
    staged.close()
    faulty_proxy.lose = "POST .*uploadId"
    gone = b"<Error><Code>NoSuchUpload</Code></Error>"  # AWS forgets an upload some time after it is complete
    faulty_proxy.answer, faulty_proxy.times = ("POST .*uploadId", 404, gone), 2
    store.publish(staged)
    assert len(faulty_proxy.spoiled) == 2
    assert store.size("x") == 3
