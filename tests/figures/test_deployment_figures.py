"""Pictures of a deployment: its programs, and what happened."""

import pytest

from workbench.figures import caption
from workbench.figures.deployment import events, parties


def test_every_program_has_a_box_and_nodes_call_the_link():
    figure = parties(3)
    names = [note.text for note in figure.layout.annotations if note.text]
    assert len(names) == len(figure.layout.shapes) == 8
    calls = [a for a in figure.layout.annotations if a.showarrow and a.ay == 1.22]
    assert {(call.ax, call.x) for call in calls} == {(0, 1), (1, 1), (2, 1)}
    assert "8 programs" in caption(figure)
    with pytest.raises(ValueError, match="1 to 6"):
        parties(7)


def test_events_stand_at_their_time_and_say_where_they_are_from():
    told = [
        {"seconds": 1.0, "text": "the run has started", "kind": "other"},
        {"seconds": 9.5, "text": "round 1 of 2: held-out loss 1.0", "kind": "round"},
        {"seconds": 12.0, "text": "SuperNode 1 ended (exit code -9)", "kind": "lost"},
    ]
    figure = events(told, "recorded on a day")
    points = {trace.name: (trace.x, trace.y) for trace in figure.data}
    assert points == {
        "a round": ((9.5,), (1,)),
        "something lost": ((12.0,), (2,)),
        "all else": ((1.0,), (0,)),
    }
    assert "recorded on a day" in figure.layout.title.text
    assert caption(figure).startswith("Recorded on a day: 3 events in 12 s")
    assert "Lost: SuperNode 1 ended" in caption(figure)
    assert "Nothing was lost" in caption(events(told[:2], "live"))


def test_a_long_name_leaves_room_for_the_reason():
    text = "round 2 of 3: held-out loss 2.0; ai + humor+gossip + money left out: no heartbeat"
    (point,) = events([{"seconds": 1.0, "text": text, "kind": "round"}], "live").data[0].text
    lines = point.strip().split("<br>")
    assert len(lines) == 2
    whole = "round 2 of 3: held-out loss 2.0; ai + 2 topics left out: no heartbeat"
    assert " ".join(map(str.strip, lines)) == whole
