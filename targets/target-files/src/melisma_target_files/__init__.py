"""Singer target for JSON Lines, CSV, MsgPack and Arrow IPC."""
