"""When a stream's schema changes: what readers can still join with the rows that are there."""

from __future__ import annotations

from melisma.arrow.types import Field, Kind, StreamSchema
from melisma.errors import BadSchema

__all__ = ["check_change"]


def check_change(old: StreamSchema, new: StreamSchema) -> None:
    """Refuse a change that would leave files which no reader can join.

    Columns, and members of objects, may come and go; one that stays must keep its type.

    Raises:
        BadSchema: a column changes its type.
    """
    found = _changed(old.fields, new.fields, "")
    if found is not None:
        path, before, after = found
        raise BadSchema(
            f"changes its type from {before} to {after}",
            stream=new.stream,
            column=path,
            fix=f'Set column_types to a type that holds both (such as "string" or "json"), or give the stream '
            f"{new.stream} another name with stream_maps (__alias__)",
        )


def _changed(old: tuple[Field, ...], new: tuple[Field, ...], path: str) -> tuple[str, str, str] | None:
    known = {each.name: each.type for each in old}
    for each in new:
        before, after, suffix = known.get(each.name), each.type, ""
        while before is not None and before.kind is after.kind and after.kind in {Kind.LIST, Kind.MAP}:
            before, after, suffix = before.items, after.items, suffix + ("[]" if after.kind is Kind.LIST else ".*")
        if before is None:
            continue
        name = f"{path}{each.name}{suffix}"
        if before.kind is Kind.STRUCT and after.kind is Kind.STRUCT:
            found = _changed(before.fields, after.fields, f"{name}.")
            if found is not None:
                return found
        elif before.arrow != after.arrow:
            return name, _named(before.kind, str(before.arrow)), _named(after.kind, str(after.arrow))
    return None


def _named(kind: Kind, arrow: str) -> str:
    return kind.value if kind in {Kind.STRUCT, Kind.LIST, Kind.MAP} else arrow
