"""From a language model's token probabilities to a distribution over classes.

A class is written as its answer (its name, unless the spec gives another), and recognised by its first tokens: a token
is a class's as soon as what was written so far begins no other class's answer. Where it begins several (``s`` for
``safe`` and ``spam``), the path that the model took goes on to its next token, whose probabilities split the mass; the
same token on a path that was not taken tells nothing, and its mass counts as outside the classes, as does everything
below the ``top_logprobs`` that servers report. So what is found is a lower bound for each class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.records import MASS_TOLERANCE
from components.contracts.spec import class_names

ROUNDING = 1e-5
"""How far two log probabilities of one token may be apart in one answer: servers print some digits of them."""


class Token(msgspec.Struct, frozen=True):
    """A candidate at one position.

    ``logprob``: None where the server prints JSON's null, as some do for a probability of zero, whose logarithm JSON
    cannot write. ``utf8`` (``bytes`` on the wire): its bytes, as it may be a part of a character.
    """

    token: str
    logprob: float | None
    utf8: list[int] | None = msgspec.field(default=None, name="bytes")

    @property
    def raw(self) -> bytes:
        """The token's bytes."""
        return bytes(self.utf8) if self.utf8 is not None else self.token.encode()

    def same(self, other: Token) -> bool:
        """Whether this is the other token once more: the same text with the same probability."""
        if self.logprob is None or other.logprob is None:
            return False
        return self.raw == other.raw and math.isclose(self.logprob, other.logprob, rel_tol=0.0, abs_tol=ROUNDING)


class Position(msgspec.Struct, frozen=True):
    """One position of the answer: the token that was taken, and the candidates in its place."""

    token: str
    logprob: float | None
    utf8: list[int] | None = msgspec.field(default=None, name="bytes")
    top_logprobs: list[Token] | None = None

    @property
    def taken(self) -> Token:
        """The token that was taken."""
        return Token(self.token, self.logprob, self.utf8)

    def candidates(self) -> dict[bytes, float]:
        """Probability by text; the taken token is among them even where the server leaves it out.

        Tokens of one text (a vocabulary may have several) have the sum of their probabilities. The taken token counts
        once, though servers may list it both in its rank and for having been taken.

        Raises:
            ValueError: a probability is not in [0, 1], or they sum to more than one.

        """
        taken = self.taken
        others = [one for one in self.top_logprobs or () if not one.same(taken)]
        found: dict[bytes, float] = {}
        for one in (*others, taken):
            if one.logprob is None:
                continue
            if math.isnan(one.logprob) or one.logprob > MASS_TOLERANCE:
                raise ValueError(f"token {one.token!r} has the log probability {one.logprob!r}, which is none")
            found[one.raw] = found.get(one.raw, 0.0) + math.exp(one.logprob)
        if (mass := math.fsum(found.values())) > 1 + MASS_TOLERANCE:
            raise ValueError(f"the probabilities of one position sum to {mass:.6g}, more than one")
        return found


def answers(classes: Sequence[str], written: Mapping[str, str], case_sensitive: bool) -> dict[str, str]:
    """The answer of each class, as it is compared.

    Raises:
        ConfigError: ``written`` has an unknown class, or two classes have the same answer, or one is empty or no text.

    """
    class_names(list(written), "answers")
    class_names(list(written.values()), "answers")
    if unknown := sorted(set(written) - set(classes)):
        raise ConfigError("answers", unknown, f"must be among the classes {', '.join(classes)}")
    made = {c: _plain(written.get(c, c), case_sensitive) for c in classes}
    if len(set(made.values())) != len(made) or "" in made.values():
        raise ConfigError("answers", made, "every class needs an answer of its own that is not empty")
    return made


def class_mass(positions: Sequence[Position], answer_of: Mapping[str, str], case_sensitive: bool) -> dict[str, float]:
    """Probability of each class; what is missing to one is outside the classes.

    Raises:
        ValueError: a position's probabilities are none.

    """
    mass = dict.fromkeys(answer_of, 0.0)
    written, weight = b"", 1.0
    for position in positions:
        follow: float | None = None
        for raw, probability in position.candidates().items():
            begun = _begun(written + raw, answer_of, case_sensitive)
            if len(begun) == 1:
                mass[begun[0]] += weight * probability
            elif begun and raw == position.taken.raw:
                follow = weight * probability
        if follow is None:
            return mass
        written, weight = written + position.taken.raw, follow
    ended = _plain(written.decode(errors="ignore"), case_sensitive)
    for name, answer in answer_of.items():  # the answer ended where one class's answer begins another's
        if answer == ended:
            mass[name] += weight
    return mass


def _begun(written: bytes, answer_of: Mapping[str, str], case_sensitive: bool) -> list[str]:
    """The classes that the text may become; one whose answer is already complete and followed by more is alone."""
    text = _plain(written.decode(errors="ignore"), case_sensitive, ended=False)
    begun = [name for name, answer in answer_of.items() if answer.startswith(text)]
    if begun:
        return begun
    complete = [name for name, answer in answer_of.items() if text.startswith(answer)]
    return [max(complete, key=lambda name: len(answer_of[name]))] if complete else []


def _plain(text: str, case_sensitive: bool, ended: bool = True) -> str:
    text = text.strip() if ended else text.lstrip()
    return text if case_sensitive else text.casefold()
