"""`python -m uniscale.cli`."""

from uniscale.cli import main

main()
