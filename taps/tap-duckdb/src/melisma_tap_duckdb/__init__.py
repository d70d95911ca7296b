"""tap-duckdb: SQL as Singer streams, over DuckDB and SQLite files, Parquet, CSV and JSON."""
