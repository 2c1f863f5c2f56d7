"""How far each rule ends from the truth, while the number of attackers changes."""

from workbench.figures.robustness import attack_caption, attack_svg
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Fewest and most clients.
LEAST, MOST = 7, 40


class AttackExplorer(Explorer):
    """The rules' errors on drawn updates; each is told to withstand as many as it can.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"rule"``, ``"attack"``, ``"clients"``, ``"attackers"``.
    errors : dict of str to float
        Rule -> distance of the joined update from the truth.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers, or why it can't be.
    """

    def __init__(self, rule: str, attack: str, clients: int, attackers: int):
        self.errors: dict[str, float] = {}
        chosen = {
            "rule": choice("rule", names()["rules"], rule),
            "attack": choice("attack", names()["attacks"], attack),
        }
        sized = {
            "clients": number("clients", clients, LEAST, MOST),
            "attackers": number("attackers", attackers, 0, MOST),
        }
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        clients, attackers = value["clients"], value["attackers"]
        self.errors = errors(clients, attackers, value["attack"])
        shown = (self.errors, value["rule"], attackers, clients)
        return attack_svg(*shown), attack_caption(*shown)


def names() -> dict[str, list[str]]:
    """The rules and the attacks to choose from."""
    from workbench.federated.breakdown import OFF, RULES

    return {"rules": list(RULES), "attacks": list(OFF)}


def errors(clients: int, attackers: int, attack: str) -> dict[str, float]:
    """Each rule's distance from the truth, on the same drawn updates."""
    from workbench.federated.breakdown import RULES, attacked_updates, error

    updates = attacked_updates(clients, attackers, attack)
    return {rule: error(rule, updates) for rule in RULES}


def attack_explorer(
    rule: str = "median", attack: str = "far", clients: int = 11, attackers: int = 2
) -> AttackExplorer:
    """Explore what attackers get under each rule.

    Parameters
    ----------
    rule, attack : str
        Keys of `workbench.federated.breakdown.RULES` and ``OFF`` to begin with.
    clients, attackers : int
        To begin with.
    """
    return AttackExplorer(rule, attack, clients, attackers)
