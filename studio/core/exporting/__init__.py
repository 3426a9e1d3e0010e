"""Exporting: to a folder that is whole and verified, or absent."""
