"""The two books of a channel: whatever a provider says, a gateway signs no more than it got; whatever a payer does, a
provider does no more than its credit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from assay.core.errors import BindingMismatch
from assay.core.offer import Price
from assay.market.ledger import check_asked, most_prompt_tokens, to_sign
from assay.market.pricing import amount_due
from assay.market.tab import Tab

AMOUNT = st.integers(0, 2**128 - 1)


@given(signed=AMOUNT, earned=AMOUNT, running=AMOUNT, asked=AMOUNT)
def test_a_voucher_is_never_lower_nor_over_what_came_nor_over_what_is_asked(
    signed: int, earned: int, running: int, asked: int
) -> None:
    """The rule, for all numbers."""
    amount = to_sign(signed=signed, earned=earned, running=running, asked=asked)
    assert amount >= signed
    assert amount == signed or amount <= min(earned + running, asked)


@given(asked=AMOUNT, earned=AMOUNT, outstanding=AMOUNT)
def test_asking_for_more_than_can_be_owed_is_a_lie(asked: int, earned: int, outstanding: int) -> None:
    """And asking for less is none."""
    if asked <= earned + outstanding:
        check_asked(asked, earned=earned, outstanding=outstanding)
    else:
        with pytest.raises(BindingMismatch, match="asks for"):
            check_asked(asked, earned=earned, outstanding=outstanding)


def test_a_prompt_has_no_more_tokens_than_bytes_and_the_templates_own() -> None:
    """Nor more than fit."""
    assert most_prompt_tokens(100, 2048) == 612
    assert most_prompt_tokens(5000, 2048) == 2048


@pytest.mark.parametrize(
    ("owed", "paid", "funds", "credit", "running", "covers"),
    [
        (0, 0, 100, 10, 10, True),
        (0, 0, 100, 10, 11, False),
        (90, 90, 100, 10, 10, True),
        (90, 90, 100, 20, 11, False),  # there is no more money
        (50, 60, 100, 10, 20, True),  # paid before
        (0, 0, 0, 10, 1, False),
    ],
)
def test_the_next_token_needs_credit_and_money(
    owed: int, paid: int, funds: int, credit: int, running: int, covers: bool
) -> None:
    """Both of them."""
    assert Tab(owed, paid, funds, credit, {"one": running}).covers == covers


PRICE = Price(3, 7)


class Channel(RuleBasedStateMachine):
    """An honest provider and an honest gateway, messages that arrive late, in any order, or never, and answers that are
    cut or whose receipt is lost."""

    @initialize(credit=st.integers(10, 300), funds=st.integers(0, 2000))
    def begin(self, credit: int, funds: int) -> None:
        self.tab = Tab(0, 0, funds, credit)
        self.delivered: dict[int, int] = {}
        """Tokens of each answer under way at the gateway, 0 until the first."""
        self.prompts: dict[int, int] = {}
        self.receipts: list[tuple[int, int]] = []
        """Price and amount, on their way."""
        self.lost = 0
        self.earned = self.asked = self.signed = 0
        self.vouchers: list[int] = []
        self.number = 0

    @rule(prompt=st.integers(1, 20))
    def ask(self, prompt: int) -> None:
        """A request; the provider may refuse it."""
        self.number += 1
        self.tab.running[self.number] = amount_due(PRICE, prompt, 1)
        if self.tab.covers:
            self.delivered[self.number], self.prompts[self.number] = 0, prompt
        else:
            del self.tab.running[self.number]

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), count=st.integers(1, 9))
    def stream(self, data: st.DataObject, count: int) -> None:
        """Tokens come, as far as they are covered; else the gateway is asked, and signs for what it has."""
        name = data.draw(st.sampled_from(sorted(self.delivered)))
        for _ in range(count):
            self.tab.running[name] = amount_due(PRICE, self.prompts[name], self.delivered[name] + 1)
            if not self.tab.covers:
                self.asked = max(self.asked, self.tab.total)
                self.sign()
                return
            self.delivered[name] += 1

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), arrives=st.booleans())
    def end(self, data: st.DataObject, arrives: bool) -> None:
        """The answer ends, whole or not; its receipt may be lost."""
        name = data.draw(st.sampled_from(sorted(self.delivered)))
        price = amount_due(PRICE, self.prompts[name], self.delivered.pop(name))
        del self.tab.running[name]
        self.tab.owed += price
        if arrives:
            self.receipts.append((price, self.tab.owed))
        else:
            self.lost += price

    @precondition(lambda self: self.receipts)
    @rule(data=st.data())
    def count(self, data: st.DataObject) -> None:
        """A receipt arrives, in any order, and is found to be possible."""
        price, amount = self.receipts.pop(data.draw(st.integers(0, len(self.receipts) - 1)))
        self.earned += price
        others = sum(each for each, _ in self.receipts) + self.lost + sum(map(self.value, self.delivered))
        check_asked(amount, earned=self.earned, outstanding=others)
        self.asked = max(self.asked, amount)
        self.sign()

    @precondition(lambda self: self.vouchers)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """A voucher arrives, in any order, or again."""
        self.tab.paid = max(self.tab.paid, data.draw(st.sampled_from(self.vouchers)))

    def value(self, name: int) -> int:
        return amount_due(PRICE, self.prompts[name], self.delivered[name])

    def sign(self) -> None:
        running = sum(map(self.value, self.delivered))
        amount = to_sign(signed=self.signed, earned=self.earned, running=running, asked=self.asked)
        assert amount <= max(self.signed, self.earned + running)
        self.signed = min(amount, max(self.signed, self.tab.funds))
        self.vouchers.append(self.signed)

    @invariant()
    def holds(self) -> None:
        """What was delivered is within what is paid and the credit, and within the money; nobody pays for more than
        was delivered to him."""
        if not hasattr(self, "tab"):
            return
        done = self.tab.owed + sum(map(self.value, self.delivered))
        assert done <= self.tab.paid + self.tab.credit
        assert done <= self.tab.funds
        assert self.tab.paid <= self.signed <= done

    def teardown(self) -> None:
        """When all has arrived, nothing is unpaid but what was lost."""
        if not hasattr(self, "tab"):
            return
        for name in list(self.delivered):
            price = amount_due(PRICE, self.prompts[name], self.delivered.pop(name))
            self.tab.owed += price
            self.receipts.append((price, self.tab.owed))
        for price, amount in self.receipts:
            self.earned += price
            self.asked = max(self.asked, amount)
            self.sign()
        assert self.tab.owed - self.lost <= self.signed <= self.tab.owed


TestChannel = Channel.TestCase
TestChannel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
