"""Shared memory between the processes: layouts and memory order in one place."""
