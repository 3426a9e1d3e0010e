"""The shell: the window itself, what holds without a checkpoint, and the actions that reach everything."""
