"""Which columns, and which members of nested ones, the catalog selects, applied to Arrow types and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Selection"]

Breadcrumb = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """A stream's selection.

    Attributes:
        mask: breadcrumb -> whether it is selected (singer-sdk's SelectionMask: unknown ones inherit).
        declared: the columns that the stream's schema has; others are dropped.
    """

    mask: Mapping[Breadcrumb, bool]
    declared: frozenset[str]

    def columns(self, names: list[str]) -> list[str]:
        """Those of `names` that the stream sends, in their order."""
        return [name for name in names if name in self.declared and self.mask["properties", name]]

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with nothing in it that is not selected; the batch itself where all of it is."""
        import pyarrow as pa

        names = self.columns(batch.schema.names)
        if not names and batch.num_columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
        chosen = batch if len(names) == batch.num_columns else batch.select(names)
        arrays = [self._prune(array, ("properties", name)) for name, array in zip(names, chosen, strict=True)]
        if all(new is old for new, old in zip(arrays, chosen.columns, strict=True)):
            return chosen
        return pa.record_batch(arrays, names=names)

    def _prune(self, array: Any, breadcrumb: Breadcrumb) -> Any:
        import pyarrow as pa

        kind = array.type
        if not pa.types.is_struct(kind):
            return array
        fields = [kind.field(i) for i in range(kind.num_fields)]
        kept = [i for i, field in enumerate(fields) if self.mask[(*breadcrumb, "properties", field.name)]]
        children = array.flatten()
        pruned = {i: self._prune(children[i], (*breadcrumb, "properties", fields[i].name)) for i in kept}
        if len(kept) == len(fields) and all(pruned[i] is children[i] for i in kept):
            return array
        mask = array.is_null() if array.null_count else None
        if not kept:
            return pa.array([None if null else {} for null in array.is_null().to_pylist()], pa.struct([]))
        chosen = [pa.field(fields[i].name, pruned[i].type) for i in kept]
        return pa.StructArray.from_arrays([pruned[i] for i in kept], fields=chosen, mask=mask)
