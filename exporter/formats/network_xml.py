"""What the XML network files share: text that XML can hold, and values as XML Schema spells them."""

from __future__ import annotations

import math
import re
from xml.sax.saxutils import escape, quoteattr

# XML 1.0 has no way to write these, escaped or not. A backslash before what looks like our escape is escaped as well,
# so that different names stay different.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]" + r"|\\(?=u[0-9a-f]{4})")
# Most texts need nothing done to them, and there are millions.
PLAIN = re.compile(r"[A-Za-z0-9_./:+\-]*")


def allowed(text: str) -> str:
    """Text with `\\u0001` (six characters) for the character U+0001, and so on for all that XML cannot hold."""
    return FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def attribute(value: str | int | float | bool) -> str:
    """A value as an attribute with its quotes; line ends and tabs survive as character references."""
    text = spelled(value)
    return f'"{text}"' if PLAIN.fullmatch(text) else quoteattr(allowed(text))


def content(value: str | int | float | bool) -> str:
    """A value between tags; a parser would turn a carriage return into a line feed."""
    text = spelled(value)
    return text if PLAIN.fullmatch(text) else escape(allowed(text), {"\r": "&#13;"})


def spelled(value: str | int | float | bool) -> str:
    """A value as text: `true`, `INF`, `NaN`, and the shortest digits that give the same number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "INF" if value > 0 else "-INF"
    return str(value)
