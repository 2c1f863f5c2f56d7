"""Published libraries beside ours: attention, and a federation; in an environment of their own."""
