"""The process that trains: its folder, its signals, its watchdog, its progress bar."""
