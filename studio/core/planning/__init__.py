"""Planning: which layers get which format, by rules and presets."""
