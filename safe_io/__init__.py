"""Files that may be truncated, hostile or remote, and a user's own code. Every package may import this; it imports none of them."""
