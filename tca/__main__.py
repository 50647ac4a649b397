"""`python -m tca`: the command line where its script is not installed, and under torchrun."""

from tca.cli import main

# Worker processes import this file too.
if __name__ == "__main__":
    main()
