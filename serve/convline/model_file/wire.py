"""The protobuf wire format: the fields of one message, without a protobuf package.

A message is a sequence of fields. A field is a varint key (number << 3 | wire type) and a value:
https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are obsolete groups


class ProtobufError(ValueError):
    """The bytes are not a well-formed message; `truncated` if they end inside a field."""

    def __init__(self, text: str, truncated: bool = False) -> None:
        super().__init__(text)
        self.truncated = truncated


class Field(NamedTuple):
    """One field: `message[start:stop]` is all of it, `value` an int or the bytes inside."""

    number: int
    value: int | memoryview
    start: int
    stop: int


def read_fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of one message in file order; ProtobufError if it is malformed."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ProtobufError(f"field number 0 at byte {start}")
        value: int | memoryview
        if wire == VARINT:
            value, position = _read_varint(message, position)
        elif wire in (BYTES, FIXED32, FIXED64):
            if wire == BYTES:
                length, position = _read_varint(message, position)
            else:
                length = 4 if wire == FIXED32 else 8
            value, position = message[position : position + length], position + length
            if position > len(message):
                what = f"field {number} needs bytes up to {position}, there are {len(message)}"
                raise ProtobufError(what, truncated=True)
        else:
            raise ProtobufError(f"wire type {wire} at byte {start}")
        yield Field(number, value, start, position)


def field_bytes(field: Field) -> memoryview:
    """Return the value of a field that is known to hold bytes."""
    assert isinstance(field.value, memoryview)
    return field.value


def read_integers(value: int | memoryview) -> Iterator[int]:
    """Yield the numbers of a repeated field: a single one, or many packed into bytes."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _read_varint(value, position)
        yield number


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return (value, next position) of the base-128 number that starts at `position`."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ProtobufError(f"number truncated at byte {position}", truncated=True)
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ProtobufError(f"number longer than 10 bytes before byte {position}")


def encode_varint(value: int) -> bytes:
    """Return a non-negative int as base-128 bytes, low bits first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, value: bytes) -> bytes:
    """Return a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(value)) + value
