"""How much the command line lets be asked for; `bounds` has these and others as types."""

MOST, MOST_ROWS = 10**9, 10**6
