"""Commands behind the Makefile; standard library only."""
