"""Options refuse what can't be, survive JSON, and say which of them go together."""

import dataclasses
import itertools
import json
import math

import pytest

from workbench import federated
from workbench.federated import FederatedTask
from workbench.federated.options import FAMILIES, as_option
from workbench.federated.options.compatible import COMPATIBLE, check_compatible

ALL = [kind for kinds in FAMILIES.values() for kind in kinds]
PAIRS = [(a, b) for a, b in itertools.combinations(ALL, 2) if a.family != b.family]

REFUSED = [
    ("FedAvg", {"weighting": "size"}, "weighting='size'"),
    ("FedProx", {"mu": -1.0}, "mu=-1.0; .* at least 0"),
    ("FedAdam", {"tau": 0.0}, "tau=0.0; .* above 0"),
    ("FedYogi", {"beta2": 1.0}, "beta2=1.0; .* below 1"),
    ("Ditto", {"lam": math.nan}, "lam=nan"),
    ("PFedMe", {"inner_steps": 0}, "inner_steps=0"),
    ("PFedMe", {"lam": 300.0}, "eta lam = 1.5"),
    ("HetLora", {"ranks": ()}, "ranks=()"),
    ("TopK", {"fraction": 1.5}, "fraction=1.5; .* at most 1"),
    ("CentralDP", {"sampling": "all"}, "sampling='all'"),
    ("SecAggPlus", {"bits": 40}, "bits=40"),
    ("SignFlip", {"clients": (1, 1)}, r"clients=\(1, 1\)"),
    ("SignFlip", {"clients": 0}, "clients=0"),
    ("HetLora", {"ranks": 8}, "ranks=8"),
    ("TopK", {"error_feedback": "no"}, "error_feedback='no'; it is True or False"),
    ("CentralDP", {"noise_multiplier": 1e-160}, "at least 0.001 and at most 1e"),
    ("System", {"speed_sigma": 1000.0}, "speed_sigma=1000.0; .* at most 10"),
    ("Backdoor", {"trigger": " "}, "trigger"),
    ("TrimmedMean", {"trim": 0.5}, "trim=0.5"),
    ("Krum", {"f": -1}, "f=-1"),
    ("MultiKrum", {"keep": 0}, "keep=0"),
    ("System", {"dropout": 1.0}, "dropout=1.0"),
    ("System", {"step_s": 0.0}, "step_s=0.0"),
    ("Dirichlet", {"alpha": 0.0}, "alpha=0.0"),
]


def made(kind, **values):
    """The option as it is made where nobody looks at types first."""
    option = object.__new__(kind)
    for each in dataclasses.fields(kind):
        object.__setattr__(option, each.name, values.get(each.name, each.default))
    option.__post_init__()
    return option


@pytest.mark.parametrize(("name", "values", "reason"), REFUSED, ids=lambda v: str(v)[:30])
def test_an_option_refuses_what_no_run_can_have(name, values, reason):
    with pytest.raises(ValueError, match=reason):
        made(getattr(federated, name), **values)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_option_is_public_frozen_and_survives_json(kind):
    option = kind()
    assert getattr(federated, kind.__name__) is kind
    assert as_option(kind.family, json.loads(json.dumps(option.to_dict()))) == option
    assert as_option(kind.family, kind.label()) == option
    for each in dataclasses.fields(option):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(option, each.name, 1)


@pytest.mark.parametrize("clients", [range(2), {1, 0}, [0, 1], {0: "", 1: ""}.keys()], ids=str)
def test_many_values_become_a_tuple_that_json_can_hold(clients):
    option = made(federated.SignFlip, clients=clients)
    assert option.clients == (0, 1)
    assert json.dumps(option.to_dict())


def test_names_are_forgiving_and_unknown_ones_are_listed():
    assert as_option("secure_aggregation", "SecAgg+") == federated.SecAggPlus()
    assert as_option("method", "local-head") == federated.LocalHead()
    with pytest.raises(ValueError, match=r"one of \['bf16', 'int8', 'topk'\], or None"):
        as_option("compression", "zip")


@pytest.mark.parametrize("kind", [k for k in ALL if not k.available], ids=lambda k: k.__name__)
def test_what_is_not_there_yet_is_refused(kind):
    with pytest.raises(ValueError, match="not available yet"):
        FederatedTask(**{kind.family: kind()})


def forbidden(one, other):
    """Whether the design forbids two kinds, written down a second time, by names."""
    names, families = {one.__name__, other.__name__}, {one.family, other.family}
    if "CentralDP" in names and families & {"method", "defence", "secure_aggregation"}:
        return not names & {"FedAvg", "FedProx", "FfaLora"}
    if "CentralDP" in names and "TopK" in names:
        return True  # its default keeps what was not sent
    if "SecAggPlus" in names and families & {"method", "compression", "defence"}:
        return not names & {"FedAvg", "FfaLora"}
    if "System" in names and "secure_aggregation" in families:
        return True
    exact = {"Scaffold", "FedExLora", "Flora", "HetLora", "FlexLora"}
    return "defence" in families and bool(names & exact)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda k: k.__name__)
def test_each_pair_goes_together_or_is_refused_with_a_way_out(one, other):
    options = {one.family: one(), other.family: other()}
    if forbidden(one, other):
        with pytest.raises(ValueError, match=r"does not go with .* Take") as refused:
            check_compatible(options)
        assert one.__name__ in str(refused.value)
        assert other.__name__ in str(refused.value)
    else:
        check_compatible(options)


def test_the_table_names_kinds_of_the_family():
    for rule in COMPATIBLE:
        assert rule.option in FAMILIES[rule.option.family]
        assert set(rule.allowed) <= set(FAMILIES[rule.family])


def test_a_defence_counts_the_clients_of_a_round():
    task = FederatedTask(num_clients=8, clients_per_round=4)
    with pytest.raises(ValueError, match=r"Krum with f=1 of 4 updates.* at least 5"):
        federated.Krum().check_task(task)
    with pytest.raises(ValueError, match=r"Bulyan.* at least 7"):
        federated.Bulyan().check_task(task)
    with pytest.raises(ValueError, match=r"= 0 .* which is the plain mean"):
        federated.TrimmedMean(0.2).check_task(task)
    federated.TrimmedMean(0.25).check_task(task)
    with pytest.raises(ValueError, match="go from 0 to 7"):
        federated.LabelFlip((8,)).check_task(task)


def test_a_delta_that_promises_little_is_warned_of():
    with pytest.warns(UserWarning, match="not below 1/num_clients"):
        FederatedTask(num_clients=8, privacy=federated.LocalDP(delta=0.2))
