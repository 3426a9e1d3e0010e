"""The window: Qt over `studio.core`, and nothing else of the program."""
