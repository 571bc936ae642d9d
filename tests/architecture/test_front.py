"""What `import headwater as hw` offers is not hidden by the rooms that are imported meanwhile."""

from pathlib import Path

import headwater


def test_no_room_has_the_name_of_something_public():
    rooms = {path.stem for path in Path(headwater.__file__).parent.iterdir()}
    offered = {name for names in headwater._HOMES.values() for name in names}
    assert not rooms & offered
