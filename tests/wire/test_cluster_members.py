from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.cluster import Node
from engine.wire.cluster_members import parse_members

ASKED = Node("10.0.0.1", 6379)
REPLY = b"""\
a1 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-5460 [93-<-b2]
b2 10.0.0.2:6379@16379,name.example master,fail? - 0 1 2 disconnected 5461-10922 10925
c3 [fd00::3]:6379@16379 slave a1 0 0 1 connected
d4 :0@0 master,fail,noaddr - 0 0 4 disconnected
e5 :6380@16380 master - 0 0 1 connected
"""


def test_members_are_read_with_their_slots_and_states():
    first, second, third, fourth = parse_members(REPLY, ASKED)
    assert (first.node, first.slots, first.reachable, first.failed) == (ASKED, 5461, True, False)
    assert (second.node.host, second.slots, second.reachable, second.failed) == ("10.0.0.2", 5463, False, True)
    assert (third.master_id, third.is_master, third.node.port) == ("a1", False, 6379)
    assert fourth.node == Node("10.0.0.1", 6380), "a node that does not know its own address"


def test_nodes_are_called_by_their_host_names_where_the_map_of_slots_does_so():
    said = parse_members(REPLY, ASKED, {"name.example"})
    assert [member.node.host for member in said] == ["10.0.0.1", "name.example", "[fd00::3]", "10.0.0.1"]
    assert parse_members(REPLY, ASKED, {"10.0.0.1", ""}) == parse_members(REPLY, ASKED)


@pytest.mark.parametrize("reply", [None, 5, b"a b c", b"a1 10.0.0.1:x@1 master - 0 0 1 connected", b"a\n" * 2000])
def test_what_is_no_list_of_nodes_is_refused(reply):
    with pytest.raises(WireError):
        parse_members(reply, ASKED)


@given(st.binary(max_size=200))
def test_any_bytes_are_members_or_refused(reply):
    with contextlib.suppress(WireError):
        parse_members(reply, ASKED)
