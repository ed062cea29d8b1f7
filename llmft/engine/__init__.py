"""Token ids in, log-probabilities or trained weights out."""
