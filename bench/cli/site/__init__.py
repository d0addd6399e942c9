"""The board as a static site, for any web host and for file://, without a server."""
