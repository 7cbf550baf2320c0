"""From a row of data to a `vlmpack.Sample`."""
