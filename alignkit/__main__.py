"""`python -m alignkit` is the command line."""

from alignkit.cli.main import main

if __name__ == "__main__":
    main()
