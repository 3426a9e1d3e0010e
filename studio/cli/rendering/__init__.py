"""What people read: tables and sentences, or the same as JSON lines."""
