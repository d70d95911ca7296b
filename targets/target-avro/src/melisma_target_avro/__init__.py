"""Singer target for Avro."""
