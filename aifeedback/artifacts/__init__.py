"""The run directory: where artifacts lie, and the files that hold them."""
