"""How each backend computes a pack's attention from its plan, a file or two each."""
