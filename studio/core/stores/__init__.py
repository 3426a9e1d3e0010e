"""Stores: checkpoints that lie behind a URL, read in ranges, as if they were folders."""
