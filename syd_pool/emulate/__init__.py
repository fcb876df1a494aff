"""One module per family of system calls; one function per call; table.py says how each is treated."""
