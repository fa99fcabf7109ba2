"""English on the telephone."""

from __future__ import annotations

from typing import Final

from agi_handlers.languages.language import HUMS, Language

_PERSON: Final = (
    r"(?:(?:a|an|the|your|any|another) )?(?:real |live |human |actual )?"
    r"(?:person|people|human|human being|agent|representative|operator|somebody|"
    r"someone|supervisor|manager)(?: real| else)?"
)
_MESSAGE: Final = r"(?:a|your|me a|us a|a brief|a short|your brief) (?:\w+ )?message"
_KEY: Final = r"(?:one|two|three|four|zero|pound|star|[0-9])"

ENGLISH: Final = Language(
    tag="en",
    instructions=(
        "You are a friendly assistant on the telephone. Answer in one or two short "
        "spoken sentences, without lists or markup."
    ),
    phrases={
        "greeting": "Hello, this is the automated assistant. How can I help you?",
        "still_there": "Are you still there?",
        "say_again": "Sorry, I did not get that. Could you say it again?",
        "goodbye_no_input": "I can't hear you, so I will hang up now. Goodbye.",
        "time_warning": "We have half a minute left.",
        "time_limit": "I have to end here. I will pass you on to a person now.",
        "transferring": "One moment please, I am transferring you to a person.",
        "opted_out": "You will get no more calls from us. Goodbye.",
        "nobody_free": (
            "I am sorry, nobody is free just now. Shall we call you back instead?"
        ),
        "callback_noted": "I have noted it: we will call you back {value}.",
        "callback_unclear": "When exactly shall we call you back?",
        "closed": "Thank you for calling. We are closed at the moment. Goodbye.",
        "demo_notice": "This is a demonstration.",
    },
    opt_out=(
        r"(?:stop|quit) (?:calling|phoning|ringing|bothering)\b",
        r"(?:do not|dont|never) (?:ever )?(?:call|phone|ring|contact) "
        r"(?:me|us|here|this number|again|anymore|any more|back)\b",
        r"(?:take|remove|delete|get) (?:me|us|my (?:phone )?number|this number)"
        r"(?: off| out of| from) (?:of )?(?:your|the|this|that) "
        r"(?:\w+ )?(?:list|lists|database|system)\b",
        r"(?:put|add|place) (?:me|us|my number|this number) (?:on|to) "
        r"(?:your|the) do not call\b",
        r"(?:do not|dont) call list\b",
    ),
    person=(
        r"(?:speak|talk|chat)(?: with| to) " + _PERSON + r"\b",
        r"(?:give|get|find|put|pass|transfer|connect|switch) me"
        r"(?: over| through| on)?(?: to| with)? " + _PERSON + r"\b",
        r"(?:want|need|like|prefer)(?: to have)? (?:a|an) (?:real |live |human )?"
        r"(?:person|human|agent|representative|operator)\b",
        r"^(?:(?:a|an|the) )?(?:real |live |human )?"
        r"(?:person|human|agent|representative|operator)(?: please)?$",
    ),
    listening=(
        *HUMS,
        # "huh?" alone asks for more
        "u+h+(?: huh)?",
        "u+m+",
        "okay",
        "ok",
        "right",
        "al(?:l )?right",
        "i see",
        "got it",
    ),
    machine=(
        # "would you like to leave a message?" is a receptionist's
        r"(?:^|please |and |or |just |then |can |phone |now |name |number )leave "
        + _MESSAGE,
        r"leave (?:your|a) (?:name|number|phone number|details)\b",
        r"(?:after|at|upon) the (?:tone|beep|signal)\b",
        r"(?:wait for|hear) the (?:tone|beep)\b",
        r"record your (?:\w+ )?(?:message|name)\b",
        # "he can't come to the phone" is his wife's
        r"\b(?:i|we) (?:cant|cannot|can not|am unable to|are unable to|am not able to|"
        r"are not able to|couldnt) (?:come to|get to|answer|take|pick up) "
        r"(?:the |your |my )?(?:phone|call|telephone)\b",
        r"(?:nobody|no one) (?:is|can) (?:available to )?(?:take|answer) your call\b",
        r"not available to (?:take|answer) your call\b",
        r"you(?:ve| have) reached the (?:voice ?mail|mailbox|answering)\b",
        r"(?:been )?forwarded to (?:an? )?(?:automat\w* )?(?:voice|voicemail)\b",
        r"(?:person|party|customer|subscriber|number) "
        r"(?:that )?you (?:are (?:calling|trying to)|have (?:dialed|dialled|called))"
        r".{0,40}(?:not available|unavailable|not in service|disconnected|busy|"
        r"switched off)\b",
        r"\bmail ?box is full\b",
        r"not accepting (?:\w+ )?messages\b",
    ),
    menu=(
        r"(?:press|dial|enter|push) " + _KEY + r"\b",
        r"for (?:\w+ ){1,4}(?:press|dial|say)\b",
        r"listen (?:carefully )?(?:to|as) (?:\w+ ){0,3}(?:menu|options)\b",
        r"our menu options have changed\b",
        r"if you know your partys? extension\b",
    ),
    machine_hint=(
        r"\byou(?:ve| have) reached\b",
        r"(?:cant|cannot|can not) come to the phone\b",
        r"not available (?:right now|at the moment|at this time)\b",
        r"\bvoice ?mail\b",
        r"(?:get|call|phone|ring) (?:back to )?you (?:back )?"
        r"(?:as soon as|when|shortly)\b",
        r"return your call\b",
        r"sorry (?:i|we) (?:missed|cant|cannot)\b",
        r"(?:office|business|opening) hours are\b",
        r"call may be (?:monitored|recorded)\b",
        r"your call is important\b",
    ),
    person_sign=(
        r"\b(?:who is this|whos this|who is calling|whos calling|who are you)\b",
        r"how (?:can|may) (?:i|we) help\b",
        r"^(?:hello|hi|yes|yeah|yep|speaking)(?: (?:hello|hi|yes|yeah|speaking))*$",
        r"\bis (?:this|that) (?:a )?(?:voice ?mail|machine|robot|recording)\b",
        r"\b(?:can|could) you (?:hear me|repeat|speak up)\b",
        r"what do you want\b",
        r"\b(?:can|may|shall) i (?:take|give|have)\b",
        r"would you (?:like|mind|care)\b",
        r"\bdo you want to\b",
    ),
)
