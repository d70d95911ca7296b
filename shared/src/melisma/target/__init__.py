"""What a target author writes against: `ArrowTarget`, `ArrowSink`, and `FileTarget` for targets that write files."""
