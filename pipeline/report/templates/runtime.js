// What the pages that run models share: onnxruntime-web from runtime-data.js, and packed arrays.
const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const inflate = async (data, format) =>
  new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream(format))).arrayBuffer());
const ARRAYS = { uint8: Uint8Array, float32: Float32Array, float64: Float64Array, int64: BigInt64Array };
const unpack = async ({ dtype, shape, data }) => ({ dtype, shape, data: new ARRAYS[dtype]((await inflate(bytes(data), "deflate")).buffer) });

// A colour of style.css, "--positive" for example, as [red, green, blue].
const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));

const startRuntime = async () => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await inflate(bytes(RUNTIME.wasm), "gzip");
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([RUNTIME.loader], { type: "text/javascript" })) };
};

// One run at a time, and of those that wait only the newest.
const latest = (work) => {
  let busy = false, again = false;
  const go = async () => {
    if (busy) return void (again = true);
    busy = true;
    do { again = false; await work(); } while (again);
    busy = false;
  };
  return go;
};

