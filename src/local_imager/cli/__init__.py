"""The command line: the only package that prints. One module per group of commands."""
