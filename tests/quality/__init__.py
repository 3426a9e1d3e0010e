"""The ladder of methods, measured on models by what they predict."""
