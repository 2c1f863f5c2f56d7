"""The client of a federated run; the same in simulation and in deployment.

The task comes from the run's config, the client's place from the node's.
"""

from functools import partial

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from workbench.federated.client_memory import METHOD, ClientMemory, part
from workbench.federated.learner import Learner, learner_of
from workbench.federated.masking import Maskable, masked_reply
from workbench.federated.traffic import ARRAYS, CONFIG, METRICS, ROUND, USED, unpack
from workbench.federated.updates import change_to_mask, client_update

#: Keys of the node's config, by Flower's convention, and of the run's config.
PARTITION, TASK = "partition-id", "task"
#: Where the run's state is, and where a node keeps its client's, if elsewhere.
RUN_DIR, STATE_DIR = "run-dir", "state-dir"
#: Key of the record in which a client tells its name.
CLIENT = "client"

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Tell which client this node is."""
    client = int(context.node_config[PARTITION])
    name = learner_of(context.run_config[TASK]).clients[client].name
    record = ConfigRecord({PARTITION: client, "name": name})
    return Message(RecordDict({CLIENT: record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the adapter that came on this client's rows, and send back what the task says."""
    client = int(context.node_config[PARTITION])
    learner = learner_of(context.run_config[TASK])
    if (option := learner.task.secure_aggregation) is not None:
        return masked_reply(message, context, partial(_change, learner, client), option)
    return Message(_update(learner, client, message, context), reply_to=message)


def _update(learner: Learner, client: int, message: Message, context: Context) -> RecordDict:
    config, sent = message.content[CONFIG], unpack(message.content[ARRAYS])
    place = state_dir(context), config.get(USED, 0)
    return client_update(learner, sent, client, config[ROUND], *place)


def _change(learner: Learner, client: int, message: Message, context: Context) -> Maskable:
    """The same update as a change that is to be masked."""
    content = _update(learner, client, message, context)
    sent, number = unpack(message.content[ARRAYS]), message.content[CONFIG][ROUND]
    return change_to_mask(learner.task, content, sent, client, number)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate what came, or the client's own model, on this client's held-out rows."""
    client = int(context.node_config[PARTITION])
    learner = learner_of(context.run_config[TASK])
    used = message.content[CONFIG].get(USED, 0)
    weights = unpack(message.content[ARRAYS])
    if learner.task.method.personal:
        _, memory = ClientMemory(state_dir(context), client).of(used)
        weights = learner.task.method.own(weights, part(memory, METHOD), learner.start)
    weights = learner.task.method.used(learner, weights)
    metrics = learner.evaluate(weights, client)
    return Message(RecordDict({METRICS: MetricRecord(metrics)}), reply_to=message)


def state_dir(context: Context) -> str:
    """Where this client keeps what it needs in later rounds."""
    return str(context.node_config.get(STATE_DIR) or context.run_config[RUN_DIR])
