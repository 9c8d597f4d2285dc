"""Text that comes from others (file names, ids, names in a model file), made safe for one line of a
terminal."""


def escape_control_characters(text: str, keep: str = "") -> str:
    r"""Return the text with each character that is not printable as its escape, such as \x1b.

    A terminal would obey a control character in a file name. keep: characters that stay as they
    are.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def printable_line(text: str, limit: int = 160) -> str:
    """Return one line of at most `limit` characters, with ? for each that is not printable."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
