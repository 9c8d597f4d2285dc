"""A new entry from one's own images, series or network: `python -m pipeline.new`."""
