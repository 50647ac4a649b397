"""The frozen networks: pixels in, features a patch and features a segment out."""
