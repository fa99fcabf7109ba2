"""One phoneme set for all synthesizers, coarse enough to be common to all accents."""

from __future__ import annotations

_CLASSES: dict[str, str] = {
    # class: names in flite (ARPAbet), then in espeak-ng
    "sil": "pau sil h# _ _: _! _| _:: | ||",
    "iy": "iy i: i i@ i@3 I2y",
    "ih": "ih I I2 I# ix",
    "ey": "ey eI e: eI2",
    "eh": "eh E e@ E2 e",
    "ae": "ae a aa a2 &",
    "ah": "ah ax V @ a# @2 @5 @L @- ax-h",
    "er": "er 3 3: VR IR axr 3:r @r",
    "aa": "0 A: A@ O2 A 0# 0r",
    "ao": "ao O: O@ o@ O O@2",
    "ow": "ow oU o: o oU#",
    "uh": "uh U U@ U2",
    "uw": "uw u: u u:2",
    "ay": "ay aI aI2 aI@ aI3",
    "oy": "oy OI",
    "aw": "aw aU aU@ aU2",
    "p": "p p#",
    "b": "b",
    "t": "t t[ t# t2 ?",
    "d": "d d# d[",
    "k": "k k#",
    "g": "g g2",
    "f": "f",
    "v": "v v#",
    "th": "th T T2",
    "dh": "dh D D2",
    "s": "s s#",
    "z": "z z#",
    "sh": "sh S S;",
    "zh": "zh Z",
    "hh": "hh h",
    "m": "m m-",
    "n": "n n- n2",
    "ng": "ng N",
    "l": "l L l/ l#",
    "r": "r r- r2 r/ R",
    "w": "w w#",
    "y": "y j",
    "ch": "ch tS tS;",
    "jh": "jh dZ dZ;",
}
PHONE_CLASSES = tuple(_CLASSES)
SILENCE = 0
UNKNOWN = 255  # not trained on

_ESPEAK_AA = {name: c for c, names in _CLASSES.items() for name in names.split()}
# The one name with two meanings: flite's "aa" is the vowel of "hot".
_FLITE = _ESPEAK_AA | {"aa": "aa"}
_INDEX = {name: i for i, name in enumerate(PHONE_CLASSES)}


def phone_class(label: str, *, is_flite: bool) -> int:
    """Index into `PHONE_CLASSES`; `UNKNOWN` for a name not in the table."""
    if is_flite:
        return _INDEX.get(_FLITE.get(label, ""), UNKNOWN)
    bare = label.lstrip("',%=")
    return _INDEX.get(_ESPEAK_AA.get(bare, ""), UNKNOWN)
