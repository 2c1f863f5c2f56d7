"""The client of a federated run; the same in simulation and in deployment.

The task comes from the run's config, the client's place from the node's.
"""

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from workbench.federated.learner import learner_of
from workbench.federated.traffic import ARRAYS, CONFIG, METRICS, ROUND, reply, unpack

#: Keys of the node's config, by Flower's convention, and of the run's config.
PARTITION, TASK = "partition-id", "task"
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
    """Train the adapter that came on this client's rows, and send it back."""
    client = int(context.node_config[PARTITION])
    learner = learner_of(context.run_config[TASK])
    number = message.content[CONFIG][ROUND]
    weights, loss = learner.train(unpack(message.content[ARRAYS]), client, number)
    examples = len(learner.clients[client].train)
    return Message(reply(weights, loss, examples), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the adapter that came on this client's held-out rows."""
    client = int(context.node_config[PARTITION])
    learner = learner_of(context.run_config[TASK])
    metrics = learner.evaluate(unpack(message.content[ARRAYS]), client)
    return Message(RecordDict({METRICS: MetricRecord(metrics)}), reply_to=message)
