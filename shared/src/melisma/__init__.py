"""melisma: Singer taps and targets that carry records as Arrow record batches."""

__version__ = "0.1.0"
