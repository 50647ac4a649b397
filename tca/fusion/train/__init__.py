"""Training a fusion model on one store, into one run folder."""
