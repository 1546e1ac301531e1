"""The command `jobserver`. Each command's work is in a module of its own, imported only when the command is given."""
