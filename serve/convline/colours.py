"""The colours of all pictures, here and in the report.

Blue, orange, green and purple are from Okabe and Ito 2008, "Color Universal Design": they can be
told apart with every common colour vision. Measured values are blue, forecasts orange.
"""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GRID = "#333333", "#cccccc"


def lighten(colour: str, strength: float) -> str:
    """Return a colour #rrggbb mixed with white; strength 1 is the colour itself, 0 is white."""
    channels = bytes.fromhex(colour[1:])
    return "#" + bytes(round(255 - strength * (255 - value)) for value in channels).hex()
