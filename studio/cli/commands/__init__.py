"""What each command does: it asks core, and shows what comes back."""
