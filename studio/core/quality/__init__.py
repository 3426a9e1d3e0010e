"""What quantizing costs in tokens: metrics, their noise, results and thresholds."""
