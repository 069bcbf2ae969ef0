"""Run directories to one self-contained HTML page. Never imports torch."""
