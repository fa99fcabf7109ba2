"""What the phone half knows of languages: complete, and told from what people say."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.conversation.turn_actions import PhraseName
from agi_handlers.languages.known import LANGUAGES, language_of
from agi_handlers.languages.machine_words import WordsKind, words_kind


@pytest.mark.parametrize("tag", sorted(LANGUAGES))
def test_every_language_has_every_phrase_and_pattern(tag: str) -> None:
    language = LANGUAGES[tag]
    # what must be disclosed is the campaign's to say
    assert set(language.phrases) == set(get_args(PhraseName)) - {"disclosure"}
    assert all(language.phrases.values())
    assert language.instructions
    for patterns in (
        *(language.opt_out, language.person, language.machine, language.menu),
        *(language.machine_hint, language.person_sign),
    ):
        assert patterns


def test_a_tag_finds_its_language() -> None:
    assert language_of("es-MX") is LANGUAGES["es"]
    assert language_of("en_GB") is LANGUAGES["en"]
    assert language_of("fr") is None


ENGLISH_ANSWERS: list[tuple[str, WordsKind]] = [
    ("Hi, you've reached Bob. Please leave a message after the tone.", "machine"),
    ("I can't come to the phone right now, leave your name and number.", "machine"),
    ("Your call has been forwarded to an automatic voice message system.", "machine"),
    ("The person you are calling is not available.", "machine"),
    ("You have reached the voicemail of 5 5 5 1 2 3 4.", "machine"),
    ("The mailbox is full and not accepting messages.", "machine"),
    ("Nobody is available to take your call.", "machine"),
    ("You've reached the Smiths, we'll call you back as soon as we can.", "machine"),
    ("The number you have dialed is not in service.", "machine"),
    ("At the beep, please record your message.", "machine"),
    ("Thank you for calling Acme. For sales, press one.", "menu"),
    ("Please listen carefully as our menu options have changed.", "menu"),
    ("If you know your party's extension, dial it now.", "menu"),
    ("You've reached the office of Doctor Brown.", "hint"),
    ("He can't come to the phone right now.", "hint"),
    # people
    ("Hello?", "person"),
    ("Yes, speaking.", "person"),
    ("Hello, who is this?", "person"),
    ("You've reached Smith and Sons, this is Mary, how can I help you?", "person"),
    ("He can't come to the phone right now, can I take a message?", "person"),
    ("Mr Smith is not available right now, would you like to leave a message?",
     "person"),
    ("Is this a voicemail?", "person"),
    ("Good morning, Riverside Services, Anna speaking.", "none"),
    ("I left a message for you yesterday.", "none"),
    ("I will be home after the weekend.", "none"),
    ("", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), ENGLISH_ANSWERS)
def test_english_answers(text: str, kind: WordsKind) -> None:
    assert words_kind(text, "en-us") == kind


SPANISH_ANSWERS: list[tuple[str, WordsKind]] = [
    ("Hola, soy Ana, deje su mensaje después de la señal.", "machine"),
    ("En este momento no podemos atenderle.", "machine"),
    ("El teléfono al que llama está apagado o fuera de cobertura.", "machine"),
    ("Ha llamado al buzón de voz de Juan.", "machine"),
    ("Al oír el tono, grabe su mensaje.", "machine"),
    ("Nuestro horario es de nueve a cinco, le devolveremos la llamada.", "machine"),
    ("Para ventas, marque uno.", "menu"),
    ("Si conoce la extensión, márquela ahora.", "menu"),
    ("En este momento no estoy en casa.", "hint"),
    ("¿Bueno?", "person"),
    ("¿Diga?", "person"),
    ("¿Quién habla?", "person"),
    ("No se encuentra, ¿quiere dejar un mensaje?", "person"),
    ("Ferretería García, buenos días, ¿en qué puedo ayudarle?", "person"),
    ("Le dejé un mensaje ayer a su esposa.", "none"),
]


@pytest.mark.parametrize(("text", "kind"), SPANISH_ANSWERS)
def test_spanish_answers(text: str, kind: WordsKind) -> None:
    assert words_kind(text, "es-mx") == kind


@given(st.text(max_size=3000), st.sampled_from(["en", "es-mx", "de", ""]))
def test_any_text_gets_an_answer(text: str, language: str) -> None:
    assert words_kind(text, language) in get_args(WordsKind)
