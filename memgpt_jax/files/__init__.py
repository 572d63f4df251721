"""Files and folders: replacement as a whole, checksums, JSON, locks, and paths in messages."""
