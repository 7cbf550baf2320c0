"""The type checker that signatures are held against: beartype, with an int where a float is asked for allowed."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
