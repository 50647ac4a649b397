"""Stage 1: annotations and videos in, one store a split out, each video decoded once."""
