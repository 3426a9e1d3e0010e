"""Reporting: what a run found, for people."""
