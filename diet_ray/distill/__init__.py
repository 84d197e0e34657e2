"""One stage of the stream, a file per step."""
