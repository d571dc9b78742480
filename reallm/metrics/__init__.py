"""Word error rate, emission delay, reports and plots."""
