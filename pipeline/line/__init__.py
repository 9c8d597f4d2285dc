"""How `make` runs the line: entries side by side, their stages forked from one process."""
