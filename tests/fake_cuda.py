"""Stand-ins for CUDA's libraries: onnxruntime-gpu opens and runs real CUDA sessions on a machine
without a GPU.

`build` compiles one library for each that the CUDA provider loads, with the functions that it takes from there. What is
real then: which nodes the provider has kernels for and takes, its refusals (a CUDA graph over nodes on the CPU, a grid
or a dimension of 0), memory that runs out, a driver that is too old. What is not: every number. Device memory is host
memory, kernels compute nothing, and a copy from the device brings zeros.

A test asks for the fixture `fake_cuda` and runs Python in a process of its own, for a process loads
each library once:

    done = fake_cuda.run("import sys; from convline.loading import load_file; print(load_file(sys.argv[1], 'cuda').device)", path)
    assert done.stdout == "cuda\\n"

Processes that this one starts are on the stand-ins too, as long as they keep LD_LIBRARY_PATH and PYTHONPATH: a
`sitecustomize` beside the libraries takes the place of the machine's parts that a library cannot stand in for.

Keywords become environment variables. The stand-ins read FAKE_CUDA_BYTES (what the GPU's memory
holds: an allocation beyond it fails) and FAKE_CUDA_DRIVER (the CUDA version of the driver, 13000
for 13.0; 0 for a driver without a device).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FUNCTIONS = {  # library -> the names of its functions
    "libcuda.so.1": r"cu[A-Z]",
    "libcudart.so.13": r"(__)?cuda",
    "libcublas.so.13": r"cublas(?!Lt)",
    "libcublasLt.so.13": r"cublasLt",
    "libcurand.so.10": r"curand",
    "libcudnn.so.9": r"cudnn",
}
EVERY = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An opaque object: a stream, an event, a handle, a descriptor. None is ever freed. */
static void *object(void) { return calloc(1, 4096); }

static long long setting(const char *name, long long otherwise) {
  const char *value = getenv(name);
  return value ? atoll(value) : otherwise;
}
"""
DRIVER = """
int cuInit(unsigned flags) { return setting("FAKE_CUDA_DRIVER", 13020) ? 0 : 100; }
int cuDriverGetVersion(int *version) { *version = (int)setting("FAKE_CUDA_DRIVER", 13020); return 0; }
"""
RUNTIME = """
#include <driver_types.h>

enum { RUNTIME = 13000, OUT_OF_MEMORY = 2, INVALID_CONFIGURATION = 9, DRIVER_TOO_OLD = 35, NO_DEVICE = 100 };
static __thread int last_error;
static int fail(int error) { return last_error = error; }

int cudaGetLastError(void) { int error = last_error; last_error = 0; return error; }
int cudaPeekAtLastError(void) { return last_error; }
const char *cudaGetErrorName(int error) { return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "fake error"; }
const char *cudaGetErrorString(int error) {
  return error == OUT_OF_MEMORY ? "out of memory" : error == INVALID_CONFIGURATION ? "invalid configuration argument"
       : error == DRIVER_TOO_OLD ? "CUDA driver version is insufficient for CUDA runtime version"
       : error == NO_DEVICE ? "no CUDA-capable device is detected" : "fake error";
}

/* The device. */
static int usable(void) {
  long long driver = setting("FAKE_CUDA_DRIVER", 13020);
  return !driver ? fail(NO_DEVICE) : driver < RUNTIME ? fail(DRIVER_TOO_OLD) : 0;
}
int cudaDriverGetVersion(int *version) { *version = (int)setting("FAKE_CUDA_DRIVER", 13020); return 0; }
int cudaRuntimeGetVersion(int *version) { *version = RUNTIME; return 0; }
int cudaGetDeviceCount(int *count) { *count = !usable(); return last_error; }
int cudaGetDevice(int *device) { *device = 0; return usable(); }
int cudaSetDevice(int device) { return usable(); }
int cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
  memset(of, 0, sizeof *of);
  strcpy(of->name, "fake GPU");
  of->major = 9;
  of->multiProcessorCount = 132;
  of->warpSize = 32;
  of->totalGlobalMem = setting("FAKE_CUDA_BYTES", 80LL << 30);
  of->l2CacheSize = 50 << 20;
  of->sharedMemPerBlock = 48 << 10;
  of->sharedMemPerBlockOptin = 227 << 10;
  of->sharedMemPerMultiprocessor = 228 << 10;
  of->regsPerBlock = of->regsPerMultiprocessor = 65536;
  of->maxThreadsPerBlock = of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024;
  of->maxThreadsDim[2] = 64;
  of->maxThreadsPerMultiProcessor = 2048;
  of->maxBlocksPerMultiProcessor = 32;
  of->maxGridSize[0] = 2147483647;
  of->maxGridSize[1] = of->maxGridSize[2] = 65535;
  return usable();
}
int cudaDeviceGetAttribute(int *value, int what, int device) {
  *value = what == cudaDevAttrComputeCapabilityMajor ? 9 : what == cudaDevAttrComputeCapabilityMinor ? 0
         : what == cudaDevAttrMultiProcessorCount ? 132 : 1024;
  return 0;
}

/* Memory: a header before each block tells its size, so that what is freed is counted back. */
enum { HEADER = 256 };
static long long used;
static int take(void **block, size_t size, int counted) {
  char *start;
  long long own = counted ? (long long)size : 0;
  if (__atomic_add_fetch(&used, own, __ATOMIC_SEQ_CST) > setting("FAKE_CUDA_BYTES", 80LL << 30)) {
    __atomic_sub_fetch(&used, own, __ATOMIC_SEQ_CST);
    return fail(OUT_OF_MEMORY);
  }
  if (posix_memalign((void **)&start, HEADER, HEADER + size)) return fail(OUT_OF_MEMORY);
  *(long long *)start = own;
  *block = start + HEADER;
  return 0;
}
static int give(void *block) {
  if (!block) return 0;
  char *start = (char *)block - HEADER;
  __atomic_sub_fetch(&used, *(long long *)start, __ATOMIC_SEQ_CST);
  free(start);
  return 0;
}
int cudaMalloc(void **block, size_t size) { return take(block, size, 1); }
int cudaMallocAsync(void **block, size_t size, void *stream) { return take(block, size, 1); }
int cudaMallocFromPoolAsync(void **block, size_t size, void *pool, void *stream) { return take(block, size, 1); }
int cudaHostAlloc(void **block, size_t size, unsigned flags) { return take(block, size, 0); }
int cudaMallocHost(void **block, size_t size) { return take(block, size, 0); }
int cudaFree(void *block) { return give(block); }
int cudaFreeAsync(void *block, void *stream) { return give(block); }
int cudaFreeHost(void *block) { return give(block); }
int cudaMemGetInfo(size_t *left, size_t *all) {
  *all = setting("FAKE_CUDA_BYTES", 80LL << 30);
  *left = *all - used;
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  if (kind == cudaMemcpyDeviceToHost) memset(to, 0, size); else memmove(to, from, size);
  return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  return cudaMemcpy(to, from, size, kind);
}
int cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return 0; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) { memset(to, value, size); return 0; }
int cudaMemPoolCreate(void **pool, void *properties) { *pool = object(); return 0; }
int cudaPointerGetAttributes(struct cudaPointerAttributes *of, const void *block) {
  memset(of, 0, sizeof *of);
  of->type = cudaMemoryTypeDevice;
  of->devicePointer = (void *)block;
  return 0;
}

/* Streams, events, graphs: whatever is recorded is played as nothing. */
int cudaStreamCreate(void **stream) { *stream = object(); return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = object(); return 0; }
int cudaEventCreate(void **event) { *event = object(); return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = object(); return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaStreamEndCapture(void *stream, void **graph) { *graph = object(); return 0; }
int cudaGraphInstantiate(void **playable, void *graph, unsigned long long flags) { *playable = object(); return 0; }

/* Kernels: only the grid is looked at. The compiler's <<<...>>> pushes a configuration that the stub pops. */
typedef struct { unsigned x, y, z; } sides;
static __thread struct { sides grid, block; size_t shared; void *stream; } pushed[16];
static __thread int depth;
static int launch(sides grid, sides block) {
  uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, threads = (uint64_t)block.x * block.y * block.z;
  if (blocks && threads && threads <= 1024) return 0;
  fprintf(stderr, "fake CUDA: a grid of %u x %u x %u blocks of %u x %u x %u threads\\n",
          grid.x, grid.y, grid.z, block.x, block.y, block.z);
  return fail(INVALID_CONFIGURATION);
}
unsigned __cudaPushCallConfiguration(sides grid, sides block, size_t shared, void *stream) {
  if (depth == 16) return 1;
  pushed[depth].grid = grid; pushed[depth].block = block;
  pushed[depth].shared = shared; pushed[depth].stream = stream;
  depth++;
  return 0;
}
int __cudaPopCallConfiguration(sides *grid, sides *block, size_t *shared, void *stream) {
  if (!depth) return 1;
  depth--;
  *grid = pushed[depth].grid; *block = pushed[depth].block;
  *shared = pushed[depth].shared; *(void **)stream = pushed[depth].stream;
  return 0;
}
int cudaLaunchKernel(const void *code, sides grid, sides block, void **given, size_t shared, void *stream) {
  return launch(grid, block);
}
int __cudaLaunchKernel(const void *code, sides grid, sides block, void **given, size_t shared, void *stream) {
  return launch(grid, block);
}
int cudaLaunchCooperativeKernel(const void *code, sides grid, sides block, void **given, size_t shared, void *stream) {
  return launch(grid, block);
}
void **__cudaRegisterFatBinary(void *code) { return object(); }
"""
BLAS = """
int cublasCreate_v2(void **handle) { *handle = object(); return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
const char *cublasGetStatusName(int status) { return "fake cuBLAS"; }
const char *cublasGetStatusString(int status) { return "fake cuBLAS"; }
"""
BLAS_LT = "int cublasLtCreate(void **handle) { *handle = object(); return 0; }\n"
DNN = """
enum { BAD_PARAMETER = 2000, INT64 = 3, INT32 = 23, ENGINES = 202, DIMENSIONS = 902 }; /* as in cudnn_graph.h */
int cudnnCreate(void **handle) { *handle = object(); return 0; }
static int check(int place, long long side) {
  if (side > 0) return 0;
  fprintf(stderr, "fake cuDNN: dimension %d is %lld\\n", place, side);
  return BAD_PARAMETER;
}
int cudnnSetTensorNdDescriptor(void *descriptor, int type, int count, const int *sides, const int *strides) {
  for (int i = 0; i < count; i++) if (check(i, sides[i])) return BAD_PARAMETER;
  return 0;
}
/* The graph interface: one engine is there for every graph, it needs no workspace, and it has no other attribute. */
int cudnnBackendCreateDescriptor(int kind, void **descriptor) { *descriptor = object(); return 0; }
int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count, const void *values) {
  for (int i = 0; name == DIMENSIONS && i < count; i++) if (check(i, ((int64_t *)values)[i])) return BAD_PARAMETER;
  return 0;
}
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t asked, int64_t *count, void *values) {
  int number = (type == INT64 || type == INT32) && asked == 1;
  if (number && values) memset(values, 0, type == INT64 ? 8 : 4);
  if (count) *count = name == ENGINES || number;
  return 0;
}
size_t cudnnGetVersion(void) { return 91400; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return "fake cuDNN"; }
void cudnnGetLastErrorString(char *message, size_t size) { if (size) message[0] = 0; }
"""
OWN = {
    "libcuda.so.1": DRIVER,
    "libcudart.so.13": RUNTIME,
    "libcublas.so.13": BLAS,
    "libcublasLt.so.13": BLAS_LT,
}
OWN["libcudnn.so.9"] = DNN
SITE = '''
"""Imported at the start of each interpreter that has this folder on its path: the parts no library stands in for."""

import importlib.abc
import importlib.machinery
import sys


def keep_stand_ins(onnxruntime):
    # It would load the libraries of the wheels.
    onnxruntime.preload_dlls = lambda *given, **named: None


def show_gpu(session):
    session.GPU_NODES = (__file__,)  # there is no /dev/nvidia0


class After(importlib.abc.MetaPathFinder):
    """Calls a function on a module once it is imported."""

    calls = {"onnxruntime": keep_stand_ins, "convline.runtime.session": show_gpu}

    def find_spec(self, name, path=None, target=None):
        call = self.calls.pop(name, None)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if call else None
        if spec is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), call(module))
        return spec


sys.meta_path.insert(0, After())
'''


@dataclass(frozen=True)
class FakeCuda:
    """Runs Python with the stand-ins of a folder."""

    folder: Path

    def environment(self, **more: str | int) -> dict[str, str]:
        """Return the environment of a process with the stand-ins."""
        path = os.pathsep.join([str(self.folder), str(REPOSITORY)])
        told = {name: str(value) for name, value in more.items()}
        hidden = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        return hidden | {"LD_LIBRARY_PATH": str(self.folder), "PYTHONPATH": path} | told

    def run(
        self,
        code: str,
        *arguments: str | Path,
        check: bool = True,
        cwd: str | Path | None = None,
        **more: str | int,
    ) -> subprocess.CompletedProcess[str]:
        """Run code in a new process; if `check` is true it must succeed."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env=self.environment(**more),
            timeout=600,
        )
        assert done.returncode == 0 or not check, (
            f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def infer(
        self, *arguments: str | Path, check: bool = True, **more: str | int
    ) -> subprocess.CompletedProcess[str]:
        """Run the command `infer`."""
        return self.run(
            "from convline.cli.main import main; main(prog_name='infer')",
            *arguments,
            check=check,
            **more,
        )


def lacking() -> str | None:
    """Return why the stand-ins cannot be built here, or None."""
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            return f"no {tool} here"
    if not provider().exists():
        return "this onnxruntime was built without CUDA"
    return None if headers() else "CUDA's headers are not installed: triton brings them"


def provider() -> Path:
    spec = find_spec("onnxruntime")
    assert spec and spec.origin
    return Path(spec.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"


def headers() -> Path | None:
    """Return the folder of driver_types.h, which defines cudaDeviceProp; torch's compiler brings
    it.
    """
    spec = find_spec("triton")
    root = (
        Path(spec.origin).parent / "backends" / "nvidia" / "include"
        if spec and spec.origin
        else None
    )
    return root if root and (root / "driver_types.h").exists() else None


def wanted() -> set[str]:
    """Return the functions that the provider links to, and those of cuDNN that it looks up by name."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", provider()], capture_output=True, text=True, check=True
    )
    linked = {word.split("@")[0] for word in listed.stdout.split()}
    return linked | {
        name.decode() for name in re.findall(rb"\bcudnn[A-Z]\w+", provider().read_bytes())
    }


def source(library: str, names: set[str]) -> str:
    """Return the C code of a library: the functions written for it, and for every other one a
    function that returns 0.
    """
    code = EVERY + OWN.get(library, "")
    written = set(re.findall(r"\b(\w+)\(", code))
    for name in sorted(n for n in names - written if re.match(FUNCTIONS[library], n)):
        makes = library != "libcudart.so.13" and re.search(r"Create(\w*Descriptor)?$", name)
        code += f"int {name}" + (
            "(void **made) { *made = object(); return 0; }\n" if makes else "() { return 0; }\n"
        )
    return code


def build(folder: Path) -> None:
    """Compile the stand-ins into a folder."""
    names = wanted()
    for library in FUNCTIONS:
        (folder / f"{library}.c").write_text(source(library, names))
        (folder / "versions").write_text(
            f"{library} {{ global: *; }};"
        )  # the provider asks for symbols with a version
        linker = f"-Wl,-soname,{library},--version-script={folder / 'versions'}"
        flags = ["-shared", "-fPIC", "-w", f"-I{headers()}", linker]
        subprocess.run(["cc", *flags, "-o", folder / library, folder / f"{library}.c"], check=True)
    (folder / "libcudnn.so").symlink_to("libcudnn.so.9")
    (folder / "sitecustomize.py").write_text(SITE)


def built(cache: Path) -> FakeCuda:
    """Return the stand-ins for this onnxruntime and this file; they are built if the cache does not
    have them.
    """
    facts = Path(__file__).read_bytes() + metadata.version("onnxruntime-gpu").encode()
    folder = cache / hashlib.sha256(facts).hexdigest()[:16]
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=cache))
        try:
            build(made)
            made.rename(folder)
        except OSError:  # another worker of the same session was first
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return FakeCuda(folder)
