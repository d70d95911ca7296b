"""File formats, one module each, reader and writer side by side."""
