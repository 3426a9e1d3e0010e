"""Insight: why a layer loses what it loses."""
