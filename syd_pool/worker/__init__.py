"""The emulator process: loop, confinement, the caller's memory, safe lookup."""
