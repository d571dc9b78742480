"""What was said so far to what may be said next, for the transducer. One file, one predictor."""
