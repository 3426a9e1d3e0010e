"""Jobs: what runs on the background thread, and how the window follows it."""
