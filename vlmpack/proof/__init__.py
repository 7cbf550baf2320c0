"""Is packing exact on a model? `verify` builds a small one of the same architecture and finds out.

`miniature` makes the small model and `made_up` images for it; `trial` makes rows of them that put to the test
whatever packing shares; `verify` compares in float64 (`double`); `difference` says where packed and unpacked part.
"""
