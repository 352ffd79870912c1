"""One self-contained HTML page about a finished study."""
