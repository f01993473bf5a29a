"""The demonstration's own backbone and encoders, small enough to train on two cores."""
