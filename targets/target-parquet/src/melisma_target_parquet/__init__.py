"""Singer target for Parquet."""
