"""The colours of all pictures: of `infer`, of the report, and of docs.

Every colour of a picture comes from here, and so does the meaning of a colour. Legends name what is
drawn in the order of these lines:

    observed BLUE, forecast ORANGE, its intervals the widest first (`interval_tints`); PURPLE where
    a forecast is fed back; baselines in the other colours of PALETTE and INK
    training BLUE, validation ORANGE
    right BLUE, wrong ORANGE
    fp32 BLUE, fp16 GREEN, int8 ORANGE (VARIANTS)
    what has no such meaning: the colours of PALETTE in their order; published results GREY

Maps with a sign are red where positive, white at 0 and blue where negative: the map "RdBu" of
Brewer 2002, "ColorBrewer", of which POSITIVE and NEGATIVE are near the ends. Maps without a sign go
from white to dark blue. PALETTE is that of Okabe and Ito 2008, "Color Universal Design": its
colours can be told apart with every common colour vision.
"""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY = "#E69F00", "#56B4E9"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
VARIANTS = {"fp32": BLUE, "fp16": GREEN, "int8": ORANGE}
INK, GREY, GRID, WHITE = "#333333", "#777777", "#cccccc", "#ffffff"
POSITIVE, NEGATIVE = "#B2182B", "#2166AC"


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, from 0 to 255, of a colour #rrggbb."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def lighten(colour: str, strength: float) -> str:
    """Return a colour #rrggbb mixed with white; strength 1 is the colour itself, 0 is white."""
    return "#" + bytes(round(255 - strength * (255 - value)) for value in rgb(colour)).hex()


def interval_tints(count: int) -> list[str]:
    """Return a tint of the forecast's colour for each of nested intervals, the widest first."""
    return [lighten(ORANGE, 0.4 - 0.25 * place / count) for place in reversed(range(count))]
