"""The checker of types at run time: beartype, letting an int stand where a float is asked for."""

from beartype import BeartypeConf, beartype

CONF = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False)
typecheck = beartype(conf=CONF)
