"""What stands around the command and around our own workers: filters, confinement, spawning, the keeper."""
