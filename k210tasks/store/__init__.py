"""Results by their content, what tasks last read and wrote, locks, atomic writing."""
