"""Stage 2: fusion models, trained and evaluated on stores alone."""
