"""What connectors of SQL databases share: a database's facts as data, and reads that can be gone on with."""
