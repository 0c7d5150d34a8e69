"""``python -m ensemblerl`` is the command line."""

from ensemblerl.cli.main import main

if __name__ == "__main__":
    main()
