"""The command line: one module per group of commands, and the text that they print."""
