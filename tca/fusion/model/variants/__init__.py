"""The fusion architectures that tca knows by name, a short file each."""
