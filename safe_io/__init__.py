"""Reading and writing files that may be truncated, hostile or remote. Every package may import this; it imports none of them."""
