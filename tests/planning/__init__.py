"""Plans for budgets against what they turn out to lose."""
