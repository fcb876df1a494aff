"""The main process: listeners, ledger, dispatch, ptrace events, task table."""
