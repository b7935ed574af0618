"""Who gets a place in a full server, and who loses his for it."""

from concurrent import futures

import pytest

from safenet_jax.transport import accounts
from safenet_jax.transport.accounts import BYTES, CONNECTION, Counts, DeniedError, SESSION, Visitor

KINDS = CONNECTION, SESSION, BYTES
ALICE, BOB, MALLORY = (Visitor(f'10.0.0.{n}') for n in (1, 2, 3))
MEMBER = Visitor('10.0.0.3', identity='ab' * 32)


class Clock:
  def __init__(self):
    self.seconds = 1000.0

  def __call__(self):
    return self.seconds


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def evicted():
  return []


@pytest.fixture
def made(clock, evicted):
  """Accounts with four sessions, two at most of one visitor."""

  def make(**options):
    options = {'connections': 4, 'sessions': 4, 'memory_bytes': 100} | options
    found = accounts.Accounts(accounts.limits(**options), clock, clock)
    found.on_evict(lambda ticket, reason: evicted.append((ticket, reason)), *KINDS)
    return found

  return make


def test_what_is_reserved_is_counted_until_it_is_released(made):
  found = made()
  tickets = [
    found.reserve(CONNECTION, ALICE),
    found.reserve(SESSION, ALICE),
    found.reserve(BYTES, ALICE, 50),
  ]
  assert found.counts(ALICE) == Counts(1, 1, 50, 0)
  assert found.counts(BOB) == Counts()
  assert found.release(tickets[2], 20)  # there is more
  assert found.counts(ALICE).bytes == 30
  for ticket in tickets * 2:  # the second time they are unknown
    assert not found.release(ticket)
  assert found.counts(ALICE) == Counts()
  assert not found.touch(tickets[0], True)


def test_one_visitor_does_not_get_all_places(made):
  found = made()
  for _ in range(2):
    found.reserve(SESSION, MALLORY)
  with pytest.raises(DeniedError, match='^busy with 2 sessions of this client, try again later$'):
    found.reserve(SESSION, MALLORY)
  found.reserve(BYTES, MALLORY, 50)
  with pytest.raises(DeniedError, match='of this client hold .* is the limit: use some first'):
    found.reserve(BYTES, MALLORY, 1)
  for visitor in (ALICE, BOB):
    found.reserve(SESSION, visitor)
  with pytest.raises(DeniedError, match='^busy with 4 sessions, try again later$'):
    found.reserve(SESSION, Visitor('10.0.0.9'))


def test_a_certificate_has_quotas_of_its_own(made):
  """Members behind one address do not share a quota, nor with strangers there."""
  found = made(sessions=8)
  for visitor in (MEMBER, MEMBER._replace(identity='cd' * 32), MALLORY):
    assert visitor.address == MALLORY.address
    for _ in range(2):
      found.reserve(SESSION, visitor)
  assert found.counts(MEMBER).sessions == 2
  # A connection without a session has no certificate yet.
  found.reserve(CONNECTION, MALLORY)
  assert found.counts(MEMBER).connections == found.counts(MALLORY).connections == 1


def test_tokens_are_no_way_around_a_quota(made):
  found = made()
  for number in range(2):
    found.reserve(SESSION, MALLORY._replace(token=f'{number:032x}'))
  with pytest.raises(DeniedError):
    found.reserve(SESSION, MALLORY._replace(token='ff' * 16))


@pytest.mark.parametrize(
  'one, other, same',
  [
    ('10.0.0.1', '10.0.0.2', False),
    ('2001:db8::1', '2001:db8::ffff:1', True),
    ('2001:db8::1', '2001:db8:0:1::1', False),
    ('::ffff:10.0.0.1', '10.0.0.1', True),
    ('fe80::1%eth0', 'fe80::2', True),
  ],
)
def test_a_network_of_64_bits_is_one_address_of_ipv6(one, other, same):
  assert (Visitor.at(one).owner == Visitor.at(other).owner) is same


def test_a_full_house_gives_up_the_longest_idle_of_who_holds_most(made, clock, evicted):
  found = made()
  first = found.reserve(SESSION, ALICE)
  found.touch(first, True)
  clock.seconds += 1
  older, newer = (found.reserve(SESSION, MALLORY) for _ in range(2))
  found.touch(older, True)
  clock.seconds += 1
  found.touch(newer, True)
  found.reserve(SESSION, Visitor('10.0.0.8'))
  clock.seconds += 5
  found.reserve(SESSION, BOB)
  # Alice was idle longer, but Mallory holds two.
  assert evicted == [(older, 'idle for 6 s, and its place was needed')]
  assert not found.touch(older, False) and found.touch(newer, False)


def test_who_works_keeps_his_place(made, clock, evicted):
  found = made(address_sessions=4)
  tickets = [found.reserve(SESSION, MALLORY) for _ in range(4)]
  for ticket in tickets:
    found.touch(ticket, True)
    clock.seconds += 100
    assert found.touch(ticket, False)
  with pytest.raises(DeniedError, match='busy'):
    found.reserve(SESSION, ALICE)
  assert not evicted


def test_a_pause_between_two_commands_is_not_idle(made, clock, evicted):
  found = made(address_sessions=4)
  tickets = [found.reserve(SESSION, MALLORY) for _ in range(4)]
  for ticket in tickets:
    found.touch(ticket, True)
  clock.seconds += 1.9
  with pytest.raises(DeniedError, match='busy'):
    found.reserve(SESSION, ALICE)
  clock.seconds += 0.1
  found.reserve(SESSION, ALICE)
  assert [ticket for ticket, _ in evicted] == tickets[:1]


def test_nobody_takes_a_place_from_who_holds_no_more_than_himself(made, clock, evicted):
  """So one visitor cannot push all the others out, one after another."""
  found = made(address_sessions=3)
  for visitor in (ALICE, BOB):
    found.touch(found.reserve(SESSION, visitor), True)
  for _ in range(2):
    found.reserve(SESSION, MALLORY)
  clock.seconds += 100
  with pytest.raises(DeniedError, match='busy'):
    found.reserve(SESSION, MALLORY)
  assert not evicted
  found.reserve(SESSION, Visitor('10.0.0.9'))
  assert len(evicted) == 1


def test_beyond_its_quota_a_visitor_replaces_its_own(made, clock, evicted):
  found = made()
  tickets = [found.reserve(CONNECTION, MALLORY, idle=True) for _ in range(5)]
  assert [ticket for ticket, _ in evicted] == tickets[:3]
  assert found.counts(MALLORY).connections == 2
  # A connection of somebody else stays, however many more of them come.
  mine = found.reserve(CONNECTION, ALICE, idle=True)
  for _ in range(100):
    found.reserve(CONNECTION, MALLORY, idle=True)
  assert found.touch(mine, True)


def test_memory_goes_from_who_has_left_oldest_first(made, clock, evicted):
  found = made(address_sessions=4)
  tickets = [found.reserve(BYTES, MALLORY, 20) for _ in range(4)]
  member = found.reserve(BYTES, MEMBER, 20)
  for ticket in tickets[1::-1]:
    found.touch(ticket, True)
    clock.seconds += 1
  with pytest.raises(DeniedError, match='is the limit: use some first'):
    found.reserve(BYTES, ALICE, 50)  # 40 are of those who left
  assert not evicted  # and nobody loses anything for what cannot be had
  found.reserve(BYTES, ALICE, 30)
  assert [ticket for ticket, _ in evicted] == tickets[1::-1]
  assert found.touch(member, False)


def test_predictions_are_counted_by_the_day(made, clock):
  found = made()
  clock.seconds = 86400.0 * 20000 - 1
  assert found.predictions(ALICE, 3) == 3
  assert found.predictions(ALICE, 2) == 5
  assert found.predictions(ALICE, -2) == 3  # a refused request
  assert found.predictions(MEMBER, 1) == 1
  assert found.counts(ALICE).predictions == 3 and found.counts(BOB).predictions == 0
  clock.seconds += 1
  assert found.counts(ALICE).predictions == 0
  assert found.predictions(ALICE, 1) == 1


def test_refused_requests_leave_nothing_behind(made):
  """Addresses are many: a count of nothing must not be kept."""
  found = made()
  for number in range(100):
    visitor = Visitor(f'10.0.1.{number}')
    found.predictions(visitor, 2)
    found.predictions(visitor, -2)
    found.counts(visitor)
    found.release(found.reserve(CONNECTION, visitor))
  assert not found._predictions and not any(found._held.values()) and not found._kinds


def test_threads_at_once_never_get_more_than_there_is(made):
  found = made(sessions=7, address_sessions=7)

  def churn(number):
    most = 0
    for _ in range(300):
      try:
        ticket = found.reserve(SESSION, Visitor(f'10.0.0.{number % 3}'))
      except DeniedError:
        continue
      most = max(most, sum(found._held[SESSION].values()))
      found.release(ticket)
    return most

  with futures.ThreadPoolExecutor(8) as pool:
    assert max(pool.map(churn, range(8))) <= 7
  assert not found._held[SESSION]


@pytest.mark.parametrize('name', ['connections', 'sessions', 'address_sessions'])
def test_a_server_without_any_place_is_refused(name):
  with pytest.raises(ValueError, match='^0 [a-z ]+, want at least 1$'):
    accounts.limits(**{name: 0})


def test_a_small_server_is_for_one_visitor_too():
  """One who prepares in the background has two sessions, and a lone session all memory."""
  for sessions in (1, 2):
    found = accounts.limits(sessions=sessions, memory_bytes=10)
    assert found[SESSION].each == sessions and found[BYTES].each == 10
  assert accounts.limits(sessions=8, memory_bytes=80)[BYTES] == (80, 40, 0.0)
