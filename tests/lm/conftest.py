"""Fixtures for tests of what runs models."""

from tests.core.conftest import studio as studio
