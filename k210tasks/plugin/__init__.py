"""doit's entry points: a command, a loader, and its bookkeeping in a file of our own."""
