"""Tests of NVFP4 Studio; the folders mirror those of the source."""
