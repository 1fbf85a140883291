"""Run the command line as ``python -m privfair``."""

from privfair.cli.main import main

if __name__ == "__main__":
    main()
