"""The parts of the picture that `vlmpack.inspect.draw` makes, a file each. They need matplotlib."""
