"""Where images come from, and the gate that each passes before anything of it is unpacked."""
