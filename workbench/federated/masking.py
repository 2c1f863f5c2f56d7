"""A client's side of secure aggregation: its change goes out masked, by Flower's own mod."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from flwr.app import Context, Message, RecordDict

from workbench.federated.methods.base import Arrays
from workbench.federated.options.secure_aggregation import SecAggPlus
from workbench.federated.traffic import METRICS

#: Flower's name of the record that carries keys, shares and masked numbers.
#: Source: flwr.common.secure_aggregation.secaggplus_constants.RECORD_KEY_CONFIGS.
PROTOCOL = "secaggplus_configs"


class Maskable(NamedTuple):
    """What a client has for the sum.

    Parameters
    ----------
    clear : RecordDict
        What it sends in the clear: its loss and number of rows.
    change : dict
        What is to be masked.
    weight : int
        How much the change counts.
    draw : numpy.random.Generator
        Rounds the change to levels. Seeded, so that the sum has the same bits again; keys and
        masks come from the operating system.
    """

    clear: RecordDict
    change: Arrays
    weight: int
    draw: np.random.Generator


def stage_of(message: Message) -> str:
    """Which of the protocol's messages this is, by Flower's name."""
    return str(message.content[PROTOCOL]["stage"])


def masked_reply(
    message: Message,
    context: Context,
    train: Callable[[Message, Context], Maskable],
    option: SecAggPlus,
) -> Message:
    """Answer one message of the protocol; ``train`` is called where the masked change is due."""
    from flwr.client.mod import secaggplus_mod

    def trained(message: Message, context: Context) -> Message:
        mine = train(message, context)
        seed = mine.draw.integers(2**32, dtype=np.uint32)
        np.random.seed(seed)  # noqa: NPY002 (what Flower rounds by)
        content = _as_fit_result(mine.change, mine.weight, option.clipping_range)
        content[METRICS] = mine.clear[METRICS]
        return Message(content, reply_to=message)

    with _numpys_state_kept():
        return secaggplus_mod(message, context, trained)


def _as_fit_result(delta: Arrays, weight: int, largest: float) -> RecordDict:
    """What Flower's mod awaits: a legacy result, whose arrays it replaces by masked ones."""
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import fitres_to_recorddict

    # One number alone travels as an array of one: Flower would add its mask in another way.
    changes = (np.atleast_1d(delta[name]) for name in sorted(delta))
    arrays = [np.clip(each, -largest, largest).astype(np.float64) for each in changes]
    # Flower can't count the bytes of an empty text.
    status = Status(Code.OK, "ok")
    return fitres_to_recorddict(FitRes(status, ndarrays_to_parameters(arrays), weight, {}), False)


@contextmanager
def _numpys_state_kept() -> Iterator[None]:
    """Put NumPy's global random numbers back to where they were."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
