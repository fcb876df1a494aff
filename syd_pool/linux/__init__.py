"""The kernel's interface and nothing else: numbers, structures, thin calls that raise OSError."""
