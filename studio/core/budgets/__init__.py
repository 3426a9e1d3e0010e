"""Budgets: which format and method each group of layers gets, so that a budget holds and least is lost."""
