"""Errors say where, what and what to do, also when they were copied."""

from __future__ import annotations

import copy
import pickle

import pytest

from melisma.errors import BadRecord, InputError
from melisma.target.contract import NotInContract


@pytest.mark.parametrize("kind", [InputError, BadRecord, NotInContract])
def test_a_copy_says_the_same(kind: type[InputError]) -> None:
    """By copy and by pickle, as libraries that hand errors between threads or processes make them."""
    error = kind(rule="is wrong", stream="s", column="c", line=3, fix="Mend it")
    assert str(error) == 'stream "s", column "c", line 3: is wrong. Mend it'
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(other) is kind
        assert (str(other), other.line, other.fix) == (str(error), 3, "Mend it")
