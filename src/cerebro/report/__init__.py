"""One self-contained HTML page from the files that a study leaves behind."""
