"""Work that outlives the window: plan, undo, results and view of each checkpoint, kept as they change."""
