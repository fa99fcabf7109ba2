"""Streamed text -> pieces worth speaking: sentences, or clauses where it pays.

Decisions are taken character by character, so the same text gives the same pieces
however it was cut into chunks.  A full stop ends a sentence only when the text after
it shows so: a space, then a character that is not lower case.  Where that is not
enough ("3 p.m. Eastern", "3 p.m. We open") the next word decides.

Source: the hard cases in the tests; the classes of abbreviation follow Kiss and Strunk
2006 (Punkt): titles, those that stand before a number, and those that may end a
sentence, told apart by frequent sentence starters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STOPS = ".!?…"
_FULL_WIDTH_STOPS = "。！？｡．؟।"
_FULL_WIDTH_COMMAS = "，、；："
_CLAUSE_ENDS = ",;:—–"
_CLOSERS = "\"')]}”’»*_`"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST = _words(
    # Titles and connectives: a name or an example follows, never a new sentence.
    """
    mr mrs ms dr prof gen sen rep gov capt lt col sgt cpl maj rev hon pres mt ft
    messrs mme mlle vs cf e.g i.e eg ie approx viz al sr sra srta sres dra ud uds vd
    vds lic ing arq p.ej ej avda pza
    """
)
_BEFORE_A_NUMBER = _words(
    # "No. 5" goes on; "No. We don't." does not.
    """
    No. 5 No. We don't. no nos nr núm num p pp pg pág art fig ext vol ch sec apt ste
    tel rm flt ca jan feb mar apr jun jul aug sep sept oct nov dec
    """
)
_MAY_BE_LAST = _words(
    """
    a.m p.m am pm inc ltd co corp bros jr sr st ave rd blvd ln dept est etc u.s u.k
    e.u u.n d.c ph.d m.d b.a m.a ee.uu
    """
)
_STARTERS = _words(
    """
    the a an this that these those it its he she we you they i i'm i'll i've i'd
    we're we'll we've you're you'll you've they're it's that's there's here's let's
    there here what when where who why how which if in on at for from to with as so
    and but or not no yes please thanks thank sorry would could can may do does did
    is are was were will shall should have has had my your our his her their after
    before once since while also then now just okay ok sure great well however
    otherwise el la los las un una es en y o pero si no sí usted le su nos qué
    cuándo cómo gracias por para con ahora también
    """
)
_NOT_BEFORE_A_BREAK = _words(
    # A pause after one of these sounds like a stumble.
    """
    a an the of to in on at by for from with and or but as if is are was were be my
    your our his her their its this that these those i we you he she it they not no
    very so will would can could may might should must do does did has have had el
    la los las un una de del en a y o que su sus mi tu con por para se es
    """
)
_BREAK_BEFORE = _words(
    # Where speakers breathe in mid-sentence.
    """
    and but or so because if when while where which who that to for with at in on
    from by about before after until please y o pero si cuando donde que para con en
    por porque desde hasta
    """
)

_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘¿¡]+$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")
_LIST_NUMBER = re.compile(r"\s*[(\[*_]*(?:\d{1,3}|[a-zA-Z])\Z")
_DEFERRED = re.compile(r"(?s)(.*\S)(\s+)([\w'’]+)\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the text to be spoken in one go, outer white space left out."""

    text: str
    start_chars: int
    end_chars: int
    """`text` is [start_chars, end_chars) of everything received so far."""
    ends_sentence: bool
    """False for a clause or a forced cut: the voice should not fall."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    max_chars: int = 200
    """About 12 s of speech; one piece is the unit of cancelling and of look-ahead."""
    first_clause_words: int = 3
    """The first piece may end at a comma after so many words; fewer would be spoken
    before the next piece is there.  0: never."""
    first_max_words: int = 8
    """The first piece ends after about so many words: some 2.5 s of speech, in which
    a model of 10 tokens a second writes the next.  0: never."""


class SentenceSplitter:
    """One reply's text in, pieces out; make a new one for each reply."""

    def __init__(self, options: SplitOptions | None = None) -> None:
        self._options = options or SplitOptions()
        self._pending = ""
        self._start_chars = 0  # of `_pending` in the reply's text
        self._num_pieces = 0
        self._num_words = 0  # whole words in `_pending`

    def receive_text(self, text: str) -> list[Piece]:
        """Any number of characters, cut anywhere."""
        pieces: list[Piece] = []
        waiting = list(reversed(text))
        while waiting:
            self._append(waiting.pop())
            cut = self._find_cut()
            if cut is None:
                continue
            at, ends_sentence = cut
            rest = self._pending[at:]
            if piece := self._take(at, ends_sentence):
                pieces.append(piece)
            waiting.extend(reversed(rest))  # it may hold another end
        return pieces

    def flush(self) -> list[Piece]:
        """The text is complete: whatever is left is a piece, or two."""
        pieces: list[Piece] = []
        at = self._find_deferred_cut(self._pending)
        if at is not None:
            rest = self._pending[at:]
            if piece := self._take(at, ends_sentence=True):
                pieces.append(piece)
            self._pending = rest
        if piece := self._take(len(self._pending), ends_sentence=True):
            pieces.append(piece)
        return pieces

    def _append(self, char: str) -> None:
        if char.isspace() and self._pending and not self._pending[-1].isspace():
            self._num_words += 1
        self._pending += char

    def _take(self, at: int, ends_sentence: bool) -> Piece | None:
        """Cut the first `at` characters off; the caller gives the rest back."""
        raw = self._pending[:at]
        text = raw.strip()
        start = self._start_chars + len(raw) - len(raw.lstrip())
        self._start_chars += at
        self._pending = ""
        self._num_words = 0
        if not text:
            return None
        self._num_pieces += 1
        return Piece(text, start, start + len(text), ends_sentence)

    def _find_cut(self) -> tuple[int, bool] | None:
        """(length of the piece, does it end a sentence) once the last char decides."""
        pending, char = self._pending, self._pending[-1]
        if char in _FULL_WIDTH_STOPS or char == "\n":
            return len(pending), True
        if char in _FULL_WIDTH_COMMAS and self._first_clause_is_long(len(pending) // 2):
            return len(pending), False
        starts_word = not char.isspace() and pending[-2:-1].isspace()
        if starts_word:
            before = pending[:-1].rstrip()
            at = len(pending) - 1
            if before and (kind := self._boundary(before, char)) is not None:
                return at, kind
        elif not (char.isalnum() or char in "'’"):
            deferred = self._find_deferred_cut(pending[:-1])
            if deferred is not None:
                return deferred, True
            breath = self._find_breath()
            if breath is not None:
                return breath, False
        if len(pending) > self._options.max_chars:
            return self._forced_cut()
        return None

    def _boundary(self, before: str, char: str) -> bool | None:
        """May a piece end with `before`, `char` following?  None: no."""
        if _ends_sentence(before, char):
            return True
        if self._num_pieces or not char.isalpha():
            return None
        if before[-1] in _CLAUSE_ENDS and self._first_clause_is_long(self._num_words):
            return False
        limit = self._options.first_max_words
        if limit and self._num_words >= limit + 4:  # long enough without a good place
            return False if _may_pause_after(before) else None
        return None

    def _first_clause_is_long(self, num_words: int) -> bool:
        needed = self._options.first_clause_words
        return self._num_pieces == 0 and 0 < needed <= num_words

    def _find_breath(self) -> int | None:
        """Where a long first piece may end: before the word just completed."""
        limit = self._options.first_max_words
        num_before = self._num_words - self._pending[-1].isspace()
        if self._num_pieces or not limit or num_before < limit:
            return None
        before, space, word = self._pending[:-1].rpartition(" ")
        if space and word.lower() in _BREAK_BEFORE and _may_pause_after(before):
            return len(before) + 1
        return None

    def _find_deferred_cut(self, text: str) -> int | None:
        """Where a doubtful stop is settled by the last word of `text`."""
        match = _DEFERRED.match(text[-80:])
        if match is None or match[3].lower().replace("’", "'") not in _STARTERS:
            return None
        before = match[1].rstrip(_CLOSERS)
        if not match[3][0].isupper() or not before.endswith("."):
            return None
        word = _last_word(before)[:-1].lower()
        if word in _MAY_BE_LAST or (_INITIALS.match(word) and word not in _NEVER_LAST):
            return len(text) - len(match[3])
        return None

    def _forced_cut(self) -> tuple[int, bool]:
        """A place to cut an over-long piece: a clause end, a space, or anywhere."""
        text = self._pending[: self._options.max_chars]
        best_space = 0
        for at in range(len(text) - 1, len(text) // 4, -1):
            if not text[at].isspace():
                continue
            before, after = text[:at].rstrip(), self._pending[at:].lstrip()[:1]
            if before and before[-1] in _CLAUSE_ENDS:
                return at, False
            between_digits = before[-1:].isdigit() and after.isdigit()
            best_space = best_space or (0 if between_digits else at)
        return best_space or len(text), False


def _last_word(before: str) -> str:
    match = _LAST_WORD.search(before[-40:])
    return match[0] if match else ""


def _may_pause_after(before: str) -> bool:
    word = _last_word(before)
    return (
        not word.endswith(".")
        and not any(char.isdigit() for char in word)
        and word.lower().strip(_CLOSERS) not in _NOT_BEFORE_A_BREAK
    )


def _ends_sentence(before: str, char: str) -> bool:
    """`before` is followed by white space, then `char`: is it a whole sentence?"""
    core = before.rstrip(_CLOSERS)
    if not core or core[-1] not in _STOPS or char.islower():
        return False
    if core[-1] != "." or core.endswith(".."):
        return True
    word = _last_word(core)[:-1].lower()
    if word in _NEVER_LAST or _LIST_NUMBER.match(core[:-1]):
        return False
    if word in _BEFORE_A_NUMBER:
        return not char.isdigit()
    undecided = word in _MAY_BE_LAST or _INITIALS.match(word) is not None
    # A letter may begin a name or a sentence: the whole word tells (see above).
    return not (undecided and (char.isalpha() or char.isdigit()))
