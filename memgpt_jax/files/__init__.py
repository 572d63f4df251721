"""Files and folders: paths in messages, whole replacement, checksums."""
