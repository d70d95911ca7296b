"""tap-files: CSV, JSON Lines and Parquet files as Singer streams."""
