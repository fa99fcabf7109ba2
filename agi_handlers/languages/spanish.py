"""Spanish on the telephone, of Spain and of the Americas; callers are "usted"."""

from __future__ import annotations

from typing import Final

from agi_handlers.languages.language import HUMS, Language

_PERSON: Final = (
    r"(?:(?:un|una|el|la|con|a|algun|alguna) )*(?:persona|humano|agente|operador|"
    r"operadora|representante|alguien|supervisor|supervisora|ser humano|asesor|asesora)"
)
_KEY: Final = r"(?:el |la )?(?:tecla )?(?:uno|dos|tres|cuatro|cero|numeral|[0-9])"
_MESSAGE: Final = r"(?:su|tu|un|el|me un|nos un|nos su) (?:\w+ )?mensaje"

SPANISH: Final = Language(
    tag="es",
    instructions=(
        "Eres un asistente amable que atiende el teléfono. Habla siempre en español, "
        "de usted, con una o dos frases cortas, sin listas ni formato."
    ),
    phrases={
        "greeting": "Hola, le habla el asistente automático. ¿En qué puedo ayudarle?",
        "still_there": "¿Sigue usted ahí?",
        "say_again": "Perdone, no le he entendido. ¿Puede repetirlo, por favor?",
        "goodbye_no_input": "No le oigo, así que voy a colgar. Hasta luego.",
        "time_warning": "Nos queda medio minuto.",
        "time_limit": "Tengo que terminar aquí. Ahora le paso con una persona.",
        "transferring": "Un momento, por favor, le paso con una persona.",
        "opted_out": "No volverá a recibir llamadas nuestras. Hasta luego.",
        "nobody_free": (
            "Lo siento, ahora mismo no hay nadie libre. ¿Quiere que le llamemos?"
        ),
        "callback_noted": "Queda anotado: le llamaremos {value}.",
        "callback_unclear": "¿Cuándo exactamente quiere que le llamemos?",
        "closed": "Gracias por llamar. En este momento estamos cerrados. Hasta luego.",
        "demo_notice": "Esto es una demostración.",
    },
    opt_out=(
        r"(?:no|nunca) (?:me|nos) (?:vuelva|vuelvan|vuelvas|vuelvan ustedes) a "
        r"(?:llamar|molestar|marcar|contactar)\b",
        r"(?:no|nunca|ya no) (?:me|nos) "
        r"(?:llame|llamen|llames|molesten|moleste|molestes|contacten|marquen|marque)\b",
        r"no (?:quiero|deseo|queremos) (?:que (?:me|nos) (?:llamen|llame|vuelvan)|"
        r"(?:mas|recibir mas|recibir) llamadas)\b",
        r"(?:dejen|deje|paren|pare|deja|dejad|basta) de (?:llamar|molestar|marcar)",
        r"no (?:llame|llamen|llames|marque|marquen) (?:mas|nunca mas|otra vez|aqui)\b",
        r"(?:quiten|quite|borren|borre|saquen|saque|eliminen|elimine|den|deme)"
        r"(?:me|nos| mi (?:numero|telefono)| de baja| este numero)"
        r"(?: de (?:baja|su|la|esa|esta)(?: lista| base)?)?\b",
        r"\bdenme de baja\b",
        r"lista (?:robinson|de exclusion|de no llamar)\b",
    ),
    person=(
        r"(?:hablar|comunicarme) (?:con )?" + _PERSON + r"\b",
        r"(?:paseme|pasenme|pasame|pongame|ponganme|comuniqueme|comuniquenme|"
        r"transfierame|conecteme|deme)(?: con)? " + _PERSON + r"\b",
        r"(?:quiero|necesito|prefiero|quisiera) (?:a )?(?:un|una) "
        r"(?:persona|humano|agente|operador|operadora|representante|asesor|asesora)\b",
        r"^(?:con )?(?:un |una )?(?:persona|agente|operador|operadora|representante|"
        r"asesor|asesora|humano)(?: real| humana)?(?: por favor)?$",
    ),
    listening=(
        *HUMS,
        "a+j+a+",
        "a+ha+",
        "ya",
        "vale",
        "claro",
        "entiendo",
        "de acuerdo",
        "okay",
        "ok",
    ),
    machine=(
        # "¿quiere dejar un mensaje?" is a receptionist's
        # "le dejé un mensaje" is a memory
        r"(?<!le )(?<!te )(?<!les )\b"
        r"(?:deje|dejen|deja|dejenos|dejeme|dejanos|dejame) (?:" + _MESSAGE + r"|"
        r"mensaje|(?:su|tu) (?:nombre|numero|recado)|un recado)\b",
        r"(?:despues|luego|tras|al) (?:de |del |de la |oir |escuchar |sonar )*"
        r"(?:la |el )?(?:senal|tono|bip|pitido)\b",
        # "ahora no puede atenderle" is his secretary's
        r"\bno (?:puedo|podemos) (?:atender|contestar|responder|tomar)(?:le|te)?\b",
        r"\bnadie puede (?:atender|contestar)(?:le|te)?\b",
        r"(?:atender|contestar|responder)(?:le)? (?:a )?(?:su|tu) llamada\b",
        r"(?:ha llamado|esta llamando|se ha comunicado|comunicado|llama) (?:al|con el) "
        r"(?:buzon|contestador)\b",
        r"\bbuzon de (?:voz|mensajes) de\b",
        r"(?:transferid|desviad)[ao] (?:al|a un) (?:buzon|sistema)\b",
        r"(?:telefono|numero) (?:al que|que) (?:usted )?(?:llama|ha llamado|marco|"
        r"ha marcado).{0,40}(?:apagado|no esta disponible|fuera|no existe|no se "
        r"encuentra|no corresponde)\b",
        r"\bbuzon (?:esta )?lleno\b",
        r"grabe su mensaje\b",
    ),
    menu=(
        r"\b(?:marque|oprima|presione|pulse|digite) " + _KEY + r"\b",
        r"si conoce (?:el numero de )?(?:la )?extension\b",
        r"escuche (?:atentamente )?(?:las|nuestras) (?:siguientes )?opciones\b",
        r"para (?:\w+ ){1,4}(?:marque|oprima|presione|pulse|digite)\b",
    ),
    machine_hint=(
        r"\bbuzon de voz\b",
        r"\bcontestador\b",
        r"en este momento no (?:estoy|estamos|esta|se encuentra|nos encontramos)\b",
        r"(?:le|te) (?:devolvere|devolveremos|llamare|llamaremos|contactaremos)\b",
        r"(?:nos|me) (?:pondremos|pondre) en contacto\b",
        r"nuestro horario\b",
        r"su llamada es (?:muy )?importante\b",
        r"esta llamada (?:puede ser|podra ser|sera) grabada\b",
    ),
    person_sign=(
        r"\b(?:quien habla|quien es|quien llama|de parte de quien|de donde llama)\b",
        r"en que (?:puedo|podemos|le puedo|le podemos) (?:ayudar|servir)",
        r"^(?:hola|alo|bueno|diga|digame|si|mande|aqui|hable)"
        r"(?: (?:hola|alo|bueno|diga|digame|si|mande|hable))*$",
        r"\bes (?:esto |esta )?(?:un|una) (?:contestador|maquina|robot|grabacion)\b",
        r"\bme (?:oye|escucha|puede repetir)\b",
        r"que (?:quiere|desea|se le ofrece)\b",
        r"\b(?:quiere|desea|quieres|gusta) (?:usted )?(?:dejar|que)",
        r"\b(?:le|te) (?:paso|tomo|doy)\b",
    ),
)
