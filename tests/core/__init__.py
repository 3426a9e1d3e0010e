"""Tests of studio.core, through its functions and through the command line."""
