"""Pages: what is shown beside the table."""
