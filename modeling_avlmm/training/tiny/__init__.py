"""The demonstration's own backbones and encoders, small enough to train on two cores."""
