"""Formats as files are written in them; `file_format` says what a lake needs of one."""
