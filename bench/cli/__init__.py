"""The command line, a file for each group of commands, and the texts that they print."""
