"""Accounts of several processes: what a child gave back is not kept."""

import multiprocessing

from safenet_jax.protocol.service.shared_accounts import SharedAccounts
from safenet_jax.transport import accounts
from safenet_jax.transport.accounts import Accounts, BYTES, SESSION, Visitor

ALICE = Visitor('10.0.0.1')


def test_the_parent_keeps_no_ticket_that_was_given_back():
  own, (pipe, child) = Accounts(accounts.limits()), multiprocessing.Pipe()
  shared = SharedAccounts(own)

  def ask(method, *arguments):
    shared.answer(pipe, (0, method, arguments, {}))
    return child.recv()[1]

  for _ in range(3):
    ask('release', ask('reserve', SESSION, ALICE))
  ticket = ask('reserve', BYTES, ALICE, 10)
  ask('release', ticket, 4)
  assert list(shared._holders) == [ticket]
  ask('release', ticket, 6)
  ask('release', ticket)  # unknown by now
  assert not shared._holders and not own.counts(ALICE).bytes


def test_what_a_child_held_goes_with_it():
  own, (pipe, child) = Accounts(accounts.limits()), multiprocessing.Pipe()
  shared = SharedAccounts(own)
  shared.answer(pipe, (0, 'reserve', (BYTES, ALICE, 10), {}))
  child.recv()
  shared.forget(pipe)
  assert not shared._holders and not own.counts(ALICE).bytes
