"""Storage: where bytes are read from and made durable, whichever system is behind a path or URL."""
