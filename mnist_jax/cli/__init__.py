"""The command line: flags and the commands that they select."""
