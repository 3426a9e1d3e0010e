"""Interoperability: checkpoints that other packages make are read as these packages read them."""
