"""Opening sessions: no device is chosen without a word."""

import importlib.metadata
from pathlib import Path

import pytest
from convline.errors import DeviceError, ModelFileError
from convline.runtime import session

HIDDEN = "no NVIDIA GPU is seen, CUDA_VISIBLE_DEVICES hides all"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_missing_device_is_an_error_with_its_cure(classifier: Path, device: str) -> None:
    """The message says what was asked for, why it is missing, and the cure.

    `no_gpu` hides the GPU as a user can.
    """
    message = f"{HIDDEN}; unset it, or pass --device cpu"
    with pytest.raises(DeviceError, match=f"asked for {device}: {message}"):
        session.open_session(classifier, device)


@pytest.mark.usefixtures("no_gpu")
def test_auto_states_the_device_and_the_reason(classifier: Path) -> None:
    """Without a GPU it is the CPU, and the reason is given."""
    opened = session.open_session(classifier, "auto")
    assert opened.get_providers() == ["CPUExecutionProvider"]
    assert session.describe_device(opened, "auto") == f"cpu (auto: {HIDDEN})"
    assert session.describe_device(opened, "cpu") == "cpu"
    assert session.available_devices() == ["cpu"]


def test_unknown_device_lists_the_choices() -> None:
    """All four names are in the message."""
    with pytest.raises(DeviceError, match="expected one of auto, cpu, cuda, tensorrt, got 'npu'"):
        session.providers_for("npu")


def test_threads_and_spinning_reach_onnxruntime(classifier: Path) -> None:
    """onnxruntime's own options are read back from the session."""
    options = session.open_session(
        classifier, "cpu", threads=1, spinning=False
    ).get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_gpu_that_is_seen_but_broken_is_an_error(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is reported where there is none: CUDA must fail with our error and not run on the CPU."""
    if session.sees_gpu():
        pytest.skip("a real GPU is here")
    monkeypatch.setattr(session, "sees_gpu", lambda: True)
    if "cuda" not in session.available_devices():
        pytest.skip("this onnxruntime was built without CUDA")
    what = r"(CUDA cannot be loaded, \S+|libcuda.so.1 of the NVIDIA driver) is missing"
    with pytest.raises(DeviceError, match=f"asked for cuda: {what}; .*, or pass --device cpu"):
        session.open_session(classifier, "cuda")


def test_the_environment_bounds_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """GiB in bytes; a value that is no number is an error that names the variable."""
    monkeypatch.delenv(session.MEMORY, raising=False)
    assert "gpu_mem_limit" not in session.cuda_options()
    monkeypatch.setenv(session.MEMORY, "1.5")
    assert session.cuda_options()["gpu_mem_limit"] == "1610612736"
    monkeypatch.setenv(session.MEMORY, "4 GB")
    with pytest.raises(
        DeviceError, match=r"CONVLINE_GPU_GIB: expected GiB, as 4 or 0\.5, got '4 GB'"
    ):
        session.cuda_options()


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in session.available_devices(), reason="no CUDA device here")
def test_cuda_runs_on_cuda(classifier: Path) -> None:
    """CUDA is the session's first provider."""
    assert session.open_session(classifier, "cuda").get_providers()[0] == "CUDAExecutionProvider"


def test_both_distributions_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two real dist-info folders are on the path, as pip leaves them."""
    for name in session.DISTRIBUTIONS:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("onnxruntime") == "9.9"
    with pytest.raises(DeviceError, match="pip uninstall onnxruntime onnxruntime-gpu"):
        session.open_session(b"", "cpu")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["onnxruntime-1.2.dist-info"], {"onnxruntime": "1.2"}),
        (["onnxruntime.egg-info"], {"onnxruntime": "unknown"}),
        (["onnxruntime-1.2-py3.11.egg-info"], {"onnxruntime": "1.2"}),
        (["onnxruntime-gpu.egg-info"], {"onnxruntime-gpu": "unknown"}),
        (["Onnxruntime_GPU-1.2.dist-info"], {"onnxruntime-gpu": "1.2"}),
        (["ONNXruntime.gpu-1.2.dist-info"], {"onnxruntime-gpu": "1.2"}),
        (["onnxruntime-1.9.dist-info", "onnxruntime-1.10.dist-info"], {"onnxruntime": "1.10"}),
        (["onnxruntime_extensions-1.2.dist-info", "onnxruntime", "onnxruntime-1.2.txt"], {}),
    ],
)
def test_the_names_of_installed_distributions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entries: list[str], expected: dict[str, str]
) -> None:
    """Folders as pip, setuptools and conda leave them; a zip, a file and a folder that is not there
    are on the path too, and a second folder whose version the first hides.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    for entry in entries:
        (first / entry).mkdir(parents=True)
    for name in expected:
        (second / f"{name.replace('-', '_')}-9.9.dist-info").mkdir(parents=True)
    (tmp_path / "some.zip").write_bytes(b"PK")
    (tmp_path / "some.py").touch()
    path = [tmp_path / name for name in ("some.zip", "some.py", "none")]
    monkeypatch.setattr("sys.path", [*map(str, path), str(first), str(second)])
    assert session.distributions() == expected


def test_bytes_that_are_no_model_are_an_error() -> None:
    """onnxruntime's complaint becomes one sentence."""
    with pytest.raises(ModelFileError, match="cannot open it"):
        session.open_session(b"not a model", "cpu")
