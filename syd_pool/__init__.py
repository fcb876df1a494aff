"""syd-pool: an application kernel for Linux, after syd 3."""

__version__ = "0.1.0"
