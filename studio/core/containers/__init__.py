"""Files: bytes on disk <-> named arrays."""
