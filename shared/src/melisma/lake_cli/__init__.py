"""`melisma lake`: look into a lake of plain files, and mend it (docs/lake.md)."""
