"""`python -m foreword` is the command line."""

from foreword.cli import main

if __name__ == "__main__":
    main()
