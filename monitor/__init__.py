"""The monitor, a process of its own: watches the pool, decides on its size, writes the log, counts."""
