"""Rows: row -> Example (examples), Example -> token ids (layout), token ids -> batch (batch)."""
