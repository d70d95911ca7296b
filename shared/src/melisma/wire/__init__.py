"""Singer as bytes: blocks of lines, messages, and the protocol's output. Nothing here imports pyarrow."""
