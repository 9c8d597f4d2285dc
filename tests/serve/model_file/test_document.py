"""Which files `read_model_file` accepts; every other file is refused in one sentence that names it."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from convline.errors import ModelFileError
from convline.loading import load_file
from convline.model_file import onnx_file
from convline.model_file.golden import DTYPES, pack_array, unpack_array
from convline.model_file.onnx_file import MAX_ENTRY_FIELDS, MAX_TOP_FIELDS, read_model_file, seal
from convline.model_file.wire import encode_bytes
from hostile_graphs import hide, with_operator


def test_a_sealed_file_is_read_back(classifier: Path, classifier_bytes: bytes) -> None:
    """The document equals the one that was sealed, and onnx's checker accepts the sealed file."""
    found = read_model_file(classifier)
    assert {
        key: value for key, value in found.json.items() if key != "digest"
    } == tiny.classifier_document()
    assert (found.name, found.task, found.document.labels) == (
        "brightness",
        "classification",
        tiny.LABELS,
    )
    assert found.content == classifier_bytes
    onnx.checker.check_model(onnx.load_model_from_string(classifier_bytes))


def test_the_digest_follows_its_documentation(classifier_bytes: bytes) -> None:
    """The digest is the sha256 of the file as the onnx package serialises it without metadata, then
    of the canonical JSON.
    """
    proto = onnx.load_model_from_string(classifier_bytes)
    document = json.loads(proto.metadata_props[0].value)
    digest = document.pop("digest")
    del proto.metadata_props[:]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert digest == hashlib.sha256(proto.SerializeToString() + canonical.encode()).hexdigest()


def test_sealing_again_changes_nothing(classifier_bytes: bytes) -> None:
    """Other metadata is dropped, and the digest does not depend on an older digest."""
    proto = onnx.load_model_from_string(classifier_bytes)
    proto.metadata_props.add(key="author", value="someone")
    document = json.loads(proto.metadata_props[0].value)
    assert seal(proto.SerializeToString(), document) == classifier_bytes


def flip(model: bytes, fraction: float) -> bytes:
    place = int(len(model) * fraction)
    return model[:place] + bytes([model[place] ^ 1]) + model[place + 1 :]


def test_every_changed_byte_is_refused(tmp_path: Path, classifier_bytes: bytes) -> None:
    """One bit is flipped in every 7th byte; each of these files is refused."""
    path = tmp_path / "flipped.onnx"
    for place in range(0, len(classifier_bytes), 7):
        path.write_bytes(flip(classifier_bytes, (place + 0.5) / len(classifier_bytes)))
        with pytest.raises(ModelFileError, match=r"flipped\.onnx"):
            read_model_file(path)


DEEP = json.loads("[" * 900 + "]" * 900)  # json still reads and writes it, in Python's 1,000 frames


def without_golden() -> dict[str, Any]:
    """Return a document whose golden arrays hold no sample, so that replaying them could not fail."""
    document = tiny.classifier_document()
    document["golden"]["input"] = pack_array(np.zeros((0, tiny.SIDE, tiny.SIDE, 1), np.uint8))
    document["golden"]["outputs"]["probabilities"] = pack_array(np.zeros((0, 3), np.float32))
    return document


def with_stuffed_metadata() -> bytes:
    """Return a file whose one metadata entry begins with many unknown fields."""
    entry = b"\x18\x01" * MAX_ENTRY_FIELDS + encode_bytes(1, b"convline") + encode_bytes(2, b"{}")
    return tiny.classifier_graph().SerializeToString() + encode_bytes(14, entry)


def foreign() -> bytes:
    return tiny.classifier_graph().SerializeToString()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda model: np.random.default_rng(1).bytes(5000),
            "expected an ONNX file, got other bytes",
        ),
        (lambda model: b"", "expected an ONNX file, got 0 bytes"),
        (lambda model: b"<!doctype html><html><body>404</body></html>", "expected an ONNX file"),
        (lambda model: model[:-1], "the file is truncated"),
        (lambda model: model[: len(model) // 3], "the file is truncated"),
        (lambda model: foreign(), "without it"),
        (lambda model: flip(model, 0.2), "damaged"),
        (lambda model: model + model[-10:], "expected|damaged|truncated"),
        (
            lambda model: tiny.reseal(tiny.classifier_document(), hide("subgraph")),
            "got external data",
        ),
        (
            lambda model: tiny.reseal(tiny.classifier_document(), with_operator("evil.example")),
            "got 'Teleport' of",
        ),
        (
            lambda model: tiny.reseal(tiny.classifier_document() | {"provenance": {"x": DEEP}}),
            "nests deeper than 64",
        ),
        (lambda model: model.replace(b'"atol":1e-05', b'"atol":1e999'), "1e999 is not JSON"),
        (
            lambda model: b"\x08\x0a\x3a\x00" + b"\x08\x01" * MAX_TOP_FIELDS,
            "top-level fields, got more",
        ),
        (
            lambda model: tiny.reseal(tiny.classifier_document() | {"format": 3}),
            "install a newer convline",
        ),
        (lambda model: tiny.reseal({"format": 1}), "metadata key 'name': expected a non-empty"),
        (
            lambda model: tiny.reseal(without_golden()),
            "metadata key 'golden.input': expected .* of one sample or more",
        ),
        (lambda model: with_stuffed_metadata(), "without it"),
    ],
    ids=[
        "random",
        "empty",
        "html",
        "cut-by-one",
        "cut-short",
        "foreign",
        "tampered",
        "appended",
        "external",
        "domain",
        "deep",
        "infinite",
        "stuffed",
        "newer",
        "schema",
        "no golden samples",
        "stuffed metadata",
    ],
)
def test_each_faulty_file_is_refused_with_its_cause(
    tmp_path: Path, classifier_bytes: bytes, make: Any, message: str
) -> None:
    """Each file is wrong in one known way; the sentence names the file and the cause."""
    path = tmp_path / "wrong.onnx"
    path.write_bytes(make(classifier_bytes))
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def mutate(model: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with a few of them changed, a piece removed or repeated, or the end cut off."""
    raw = np.frombuffer(model, np.uint8).copy()
    start, stop = sorted(rng.integers(0, len(raw), 2))
    match rng.integers(4):
        case 0:
            raw[rng.integers(0, len(raw), 3)] = rng.integers(0, 256, 3)
        case 1:
            raw = np.delete(raw, slice(start, min(stop, start + 40)))
        case 2:
            raw = np.insert(raw, start, raw[start : start + 40])
        case _:
            raw = raw[:stop]
    return raw.tobytes()


@pytest.mark.parametrize("digest", ["kept", "made anew"])
def test_mutated_files_give_a_model_or_a_model_file_error(
    tmp_path: Path, classifier_bytes: bytes, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,500 mutations of a fixed seed give a ModelFile or a ModelFileError within 2 s each, and no
    other exception. "made anew": the digest is valid, as an attacker could compute it, so that the
    schema and the graph checks are reached.
    """
    if digest == "made anew":
        document = json.loads(onnx.load_model_from_string(classifier_bytes).metadata_props[0].value)
        monkeypatch.setattr(onnx_file, "compute_digest", lambda parts, changed: document["digest"])
    rng, path, read = np.random.default_rng(0), tmp_path / "mutated.onnx", 0
    for _ in range(1500):
        path.write_bytes(mutate(classifier_bytes, rng))
        start = time.process_time()
        try:
            read_model_file(path)
            read += 1
        except ModelFileError as error:
            assert str(error).startswith(str(path))
        assert time.process_time() - start < 2
    assert (read > 10) is (digest == "made anew")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    """Neither is a model."""
    with pytest.raises(ModelFileError, match="no such file"):
        read_model_file(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match=r"expected an \.onnx file"):
        read_model_file(tmp_path)


def test_a_file_of_two_gib_is_refused_without_reading_it(tmp_path: Path) -> None:
    """A sparse file of 2^31 bytes takes no disk space; reading it would take 2 GiB of memory."""
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelFileError, match="expected at most 2147483647 bytes"):
        read_model_file(path)


def test_a_file_must_have_the_hash_that_is_given(classifier: Path, classifier_bytes: bytes) -> None:
    """The right hash is hashlib's; with another one the file is refused."""
    assert (
        read_model_file(classifier, hashlib.sha256(classifier_bytes).hexdigest()).name
        == "brightness"
    )
    with pytest.raises(ModelFileError, match=r"expected the sha256 0{64}, got [0-9a-f]{64}"):
        read_model_file(classifier, "0" * 64)


def test_seal_refuses_external_data_and_bad_documents() -> None:
    """The exporter gets the error before the file exists."""
    with pytest.raises(ModelFileError, match="external data"):
        seal(hide("initializer").SerializeToString(), tiny.classifier_document())
    with pytest.raises(ModelFileError, match="'labels'"):
        seal(foreign(), tiny.classifier_document() | {"labels": ["a", "a"]})


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_arrays_are_unpacked_unchanged(dtype: str) -> None:
    """Bit-equal, for a view that is not contiguous, an empty array and a scalar."""
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for view in (array, array[:, ::2].transpose(2, 0, 1), array[:0], array[0, 0, 0].reshape(())):
        back = unpack_array(json.loads(json.dumps(pack_array(view))))
        assert back.dtype == view.dtype and back.shape == view.shape and (back == view).all()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1 << 40]},
        {"shape": [-1]},
        {"shape": "12"},
        {"shape": [1000]},
        {"shape": [2]},
        {"dtype": "object"},
        {"data": "%%"},
        {"data": 7},
        {"data": "AAAA"},
    ],
    ids=str,
)
def test_unpack_refuses_inconsistent_sizes(change: dict[str, Any]) -> None:
    """The data are 12 uint8 values.

    A shape that does not fit them, or exceeds the bound, must not be allocated.
    """
    with pytest.raises(ModelFileError, match="golden array"):
        unpack_array(pack_array(np.zeros(12, np.uint8)) | change)


def test_zlib_bomb_is_not_inflated() -> None:
    """50 MB of zeros are packed small and declared as 10 bytes; memory grows by less than 1 MB."""
    import tracemalloc

    bomb = pack_array(np.zeros(50_000_000, np.uint8)) | {"shape": [10]}
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="another size"):
        unpack_array(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("graph", "document"),
    [
        (tiny.classifier_graph(), tiny.classifier_document()),
        (tiny.forecaster_graph(), tiny.forecaster_document()),
    ],
    ids=["classification", "forecasting"],
)
def test_files_of_format_1_predict_as_before(tmp_path: Path, graph: Any, document: Any) -> None:
    """Only the number differs: the golden samples are replayed, and the file says 1."""
    path = tmp_path / "old.onnx"
    path.write_bytes(seal(graph.SerializeToString(), document | {"format": 1}))
    model = load_file(path, "cpu")
    assert model.file.json["format"] == 1
    assert model.replay_golden() <= model.golden_atol


def test_format_1_has_no_detectors() -> None:
    """Programs that know format 1 alone would refuse the task, not the format."""
    with pytest.raises(ModelFileError, match=r"key 'format': expected one of 2, got 1"):
        seal(tiny.detector_graph().SerializeToString(), tiny.detector_document() | {"format": 1})
