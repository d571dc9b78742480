"""Building blocks without component names: attention, convolution, rotary positions, norms."""
