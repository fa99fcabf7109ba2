"""Rendering a backbone's chat template, a Jinja program that came with the weights.

It runs in Jinja's sandbox with what transformers would give it, except the clock:
the date is the dialogue's, or prompts would change at midnight.

Source: transformers `utils/chat_template_utils.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model.errors import InvalidRequest, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from jinja2.parser import Parser


class ChatTemplate:
    """Messages -> the text the model was trained to read.

    Raises:
        ModelLoadError: the template is not Jinja.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as exc:
            raise ModelLoadError(
                f"the chat template cannot be read: {exc}", subject="chat_template"
            ) from exc
        self._special_tokens = dict(special_tokens)
        # Templates that can make the model think aloud first are told not to.
        knows_thinking = "enable_thinking" in source
        self._options = {"enable_thinking": False} if knows_thinking else {}
        self.takes_any_order = self._try_any_order()

    def render(self, messages: Sequence[Mapping[str, str]], today: date) -> str:
        """The whole dialogue and the header of the reply to come.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                date_string=today.strftime("%d %b %Y"),  # Llama 3's
                strftime_now=today.strftime,
                **self._special_tokens,
                **self._options,
            )
        except (TemplateError, TypeError, ValueError) as exc:
            raise InvalidRequest(
                f"the model's chat template refuses this dialogue: {exc}"
            ) from exc

    def _try_any_order(self) -> bool:
        """Whether a greeting may come first and a caller may speak twice running."""
        from datetime import date

        roles = ("system", "assistant", "user", "user")
        try:
            self.render(
                [{"role": role, "content": "x"} for role in roles], date(2000, 1, 1)
            )
        except InvalidRequest:
            return False
        return True


class _GenerationTag(Extension):
    """`{% generation %}` marks replies for training; here it only lets them through."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Jinja's own would escape for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
