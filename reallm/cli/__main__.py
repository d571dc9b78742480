"""``python -m reallm.cli``."""

from reallm.cli import main

main()
