"""Publishing: an export becomes a repository of a hub, whole or not at all, and what lies there is checked."""
