"""Words Spanish readers know: months, currencies, units, abbreviations, signs."""

from __future__ import annotations

MONTH_NAMES: tuple[str, ...] = (
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
)
MONTH_PATTERN = (
    r"(ene(?:ro|\b\.?)|feb(?:rero|\b\.?)|mar(?:zo|\b\.?)|abr(?:il|\b\.?)|mayo?\b\.?|"
    r"jun(?:io|\b\.?)|jul(?:io|\b\.?)|ago(?:sto|\b\.?)|sept?(?:iembre|\b\.?)|"
    r"oct(?:ubre|\b\.?)|nov(?:iembre|\b\.?)|dic(?:iembre|\b\.?))"
)
# Singular, plural, and the hundredth part in the plural ("" where nobody counts it).
CURRENCIES: dict[str, tuple[str, str, str]] = {
    "$": ("dólar", "dólares", "centavos"),
    "US$": ("dólar", "dólares", "centavos"),
    "USD": ("dólar", "dólares", "centavos"),
    "MXN": ("peso", "pesos", "centavos"),
    "MX$": ("peso", "pesos", "centavos"),
    "€": ("euro", "euros", "céntimos"),
    "EUR": ("euro", "euros", "céntimos"),
    "£": ("libra", "libras", "peniques"),
    "GBP": ("libra", "libras", "peniques"),
}
FEMININE = frozenset({"libra", "libras", "hora", "horas"})
UNITS: dict[str, tuple[str, str]] = {
    "km/h": ("kilómetro por hora", "kilómetros por hora"),
    "km": ("kilómetro", "kilómetros"),
    "cm": ("centímetro", "centímetros"),
    "mm": ("milímetro", "milímetros"),
    "m": ("metro", "metros"),
    "kg": ("kilo", "kilos"),
    "g": ("gramo", "gramos"),
    "mg": ("miligramo", "miligramos"),
    "lb": ("libra", "libras"),
    "lbs": ("libra", "libras"),
    "ml": ("mililitro", "mililitros"),
    "l": ("litro", "litros"),
    "kWh": ("kilovatio hora", "kilovatios hora"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "Mbps": ("megabit por segundo", "megabits por segundo"),
    "h": ("hora", "horas"),
    "hrs": ("hora", "horas"),
    "min": ("minuto", "minutos"),
    "s": ("segundo", "segundos"),
    "seg": ("segundo", "segundos"),
}
ABBREVIATIONS: tuple[tuple[str, str], ...] = (
    (r"\bsr\.(?= ?\w)", "señor"),
    (r"\bsra\.(?= ?\w)", "señora"),
    (r"\bsrta\.(?= ?\w)", "señorita"),
    (r"\bsres\.(?= ?\w)", "señores"),
    (r"\bdr\.(?= ?\w)", "doctor"),
    (r"\bdra\.(?= ?\w)", "doctora"),
    (r"\blic\.(?= ?\w)", "licenciado"),
    (r"\bing\.(?= ?\w)", "ingeniero"),
    (r"\b(?:ud|vd)\.", "usted"),
    (r"\b(?:uds|vds)\.", "ustedes"),
    (r"\bp\. ?ej\.,?", "por ejemplo,"),
    (r"\betc\.", "etcétera"),
    (r"\bee\. ?uu\.", "Estados Unidos"),
    (r"\b(?:núm|nro|no)\. ?(?=#?\d)", "número "),
    (r"\bn\.?[º°] ?(?=\d)", "número "),
    (r"\btel\b[.:]? ?(?=[+(\d])", "teléfono "),
    (r"\bext\b[.:]? ?(?=\d)", "extensión "),
    (r"\b(?:av|avda)\.(?= ?\w)", "avenida"),
    (r"\bc/ ?(?=\w)", "calle "),
    (r"\bpág\. ?(?=\d)", "página "),
    (r"\baprox\.", "aproximadamente"),
    (r"\bdpto\.", "departamento"),
)
CODE_WORDS = (
    r"(?:orden|pedido|cuenta|confirmación|ticket|caso|referencia|factura|póliza|"
    r"socio|serie|clave|contraseña|pin|código|id|extensión|tarjeta|reserva|vuelo|número)"
)
SYMBOLS: tuple[tuple[str, str], ...] = (
    (r"\s*&\s*", " y "),
    (r"(?i)\by/o\b", "y o"),
    (r"(?<=\w)\s*@\s*(?=\w)", " arroba "),
    (r"(?<=\w) ?= ?(?=\w)", " igual a "),
    (r"(?<=\w) ?\+ ?(?=\w)", " más "),
    (r"(?<=\w)\+", " más"),
    (r"(?<=\w) ?× ?(?=\w)", " por "),
    (r"(?<=\w) ?< ?(?=\w)", " menor que "),
    (r"(?<=\w) ?> ?(?=\w)", " mayor que "),
    (r"[~≈]\s?(?=\w)", "unos "),
    (r"(?<=[^\W\d_])/(?=[^\W\d_])", " o "),
    (r"(?<=\w)\s?%", " por ciento"),
    (r"°", " grados"),
    (r"(?i)(?<=\bmarque )\*|(?<=\boprima )\*|(?<=\bpulse )\*|(?<= o )\*", "asterisco"),
)
