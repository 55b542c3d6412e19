"""`python -m paintback`, the same as the command `paintback`."""

from paintback.cli.main import main

if __name__ == "__main__":
    main()
