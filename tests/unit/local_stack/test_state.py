from __future__ import annotations

from datetime import UTC, datetime

import pytest

from local_stack.errors import StateFileError
from local_stack.process import ProcessId
from local_stack.state import StackState, StartedService

KAFKA = StartedService(
    address="127.0.0.1:9092", pid=7, create_time=1764035000.25, since=datetime.now(UTC)
)


def test_what_was_saved_is_read_back(tmp_path):
    path = tmp_path / "new folder" / "stack.json"
    StackState(services={"kafka": KAFKA}).save(path)
    state = StackState.load(path)
    assert state.services == {"kafka": KAFKA}
    assert state.services["kafka"].process == ProcessId(7, 1764035000.25)
    assert [entry.name for entry in path.parent.iterdir()] == ["stack.json"]


def test_no_file_means_that_nothing_was_started(tmp_path):
    assert StackState.load(tmp_path / "stack.json").services == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"services": {"kafka": {"pid": 7}}}'])
def test_an_unreadable_record_is_refused_rather_than_forgotten(tmp_path, text):
    path = tmp_path / "stack.json"
    path.write_text(text)
    with pytest.raises(StateFileError, match=r"stack\.json.*by hand"):
        StackState.load(path)
