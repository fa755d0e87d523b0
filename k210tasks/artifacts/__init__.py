"""What one step writes and others read: each kind of JSON file is one declared type."""
