// Each unit of a packaged file, computed again in float64 from the numbers that it reads, beside the file's own number.
// A tensor is { data, dims }; a unit is its flat index in the tensor that its layer writes (one sample, row-major).
const INSIDE = {}; // entry -> what inside/<entry>.js holds

const product = (dims) => dims.reduce((all, size) => all * size, 1);
const flatOf = (dims, place) => dims.reduce((flat, size, k) => flat * size + place[k], 0);
const placeOf = (dims, flat) => {
  const place = Array(dims.length);
  for (let k = dims.length - 1; k >= 0; k--) [place[k], flat] = [flat % dims[k], Math.floor(flat / dims[k])];
  return place;
};
const positions = (dims) => Array.from({ length: product(dims) }, (_, k) => placeOf(dims, k));
const broadcast = (dims, place) => flatOf(dims, dims.map((size, k) => (size === 1 ? 0 : place[place.length - dims.length + k])));
const positive = (axis, dims) => (axis < 0 ? axis + dims.length : axis);
const read = (tensor, flat) => (flat < 0 ? 0 : Number(tensor.data[flat])); // -1 lies in the padding
const integers = (tensor) => Array.from(tensor.data, Number);
const add = (numbers) => numbers.reduce((a, b) => a + b, 0);

// The error function by its series (Abramowitz and Stegun 1964, 7.1.6): all terms have one sign, so nothing cancels.
const erf = (x) => {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
};
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const gate = (x, alpha, beta) => Math.max(0, Math.min(1, alpha * x + beta));

// Operators that compute a unit from the units at the same place: the formula, and what it computes.
const FORMULAS = {
  Relu: ["max(0, x)", (x) => Math.max(0, x)],
  LeakyRelu: ["x where x ≥ 0, else alpha · x", (x, { alpha = 0.01 }) => (x < 0 ? alpha * x : x)],
  Elu: ["x where x ≥ 0, else alpha · (e^x − 1)", (x, { alpha = 1 }) => (x < 0 ? alpha * Math.expm1(x) : x)],
  PRelu: ["x where x ≥ 0, else y · x", (x, y) => (x < 0 ? y * x : x)],
  Sigmoid: ["1 / (1 + e^(−x))", sigmoid],
  HardSigmoid: ["max(0, min(1, alpha · x + beta))", (x, { alpha = 0.2, beta = 0.5 }) => gate(x, alpha, beta)],
  HardSwish: ["x · max(0, min(1, x / 6 + 1/2))", (x) => x * gate(x, 1 / 6, 0.5)],
  Tanh: ["tanh(x)", Math.tanh],
  Softplus: ["log(1 + e^x)", (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))],
  Mish: ["x · tanh(log(1 + e^x))", (x) => x * Math.tanh(Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))))],
  Clip: ["min(max(x, y), z)", (x, y = -Infinity, z = Infinity) => Math.min(Math.max(x, y), z)],
  Erf: ["erf(x)", erf],
  Exp: ["e^x", Math.exp],
  Log: ["log(x)", Math.log],
  Sqrt: ["√x", Math.sqrt],
  Abs: ["|x|", Math.abs],
  Neg: ["−x", (x) => -x],
  Reciprocal: ["1 / x", (x) => 1 / x],
  Cast: ["x", (x) => x],
  Add: ["x + y", (x, y) => x + y],
  Sub: ["x − y", (x, y) => x - y],
  Mul: ["x · y", (x, y) => x * y],
  Div: ["x / y", (x, y) => x / y],
  Pow: ["x ^ y", (x, y) => x ** y],
  Min: ["min(x, y)", Math.min],
  Max: ["max(x, y)", Math.max],
};
const gelu = ({ approximate = "none" }) => (approximate === "tanh"
  ? ["x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))", (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))]
  : ["x/2 · (1 + erf(x / √2))", (x) => (x / 2) * (1 + erf(x / Math.SQRT2))]);

const elementwise = (layer, inputs, place) => {
  const [text, compute] = layer.op === "Gelu" ? gelu(layer.attributes) : FORMULAS[layer.op];
  if (inputs.length > 3) return null;
  const places = inputs.map((tensor) => tensor && broadcast(tensor.dims, place));
  const numbers = inputs.map((tensor, k) => (tensor ? read(tensor, places[k]) : undefined));
  const reads = numbers.map((value, k) => ({ name: "xyz"[k], from: layer.inputs[k], place: places[k], value })).filter(({ value }) => value !== undefined);
  const takesAttributes = ["LeakyRelu", "Elu", "HardSigmoid"].includes(layer.op);
  for (const name of ["alpha", "beta"]) if (name in layer.attributes) reads.push({ name, value: layer.attributes[name] });
  return { kind: "formula", text, reads, value: compute(...numbers, ...(takesAttributes ? [layer.attributes] : [])) };
};

// The flat index, in one map of the input, of each cell of a window; -1 in the padding, null beyond it (ceil_mode).
const windowCells = (size, { kernel_shape, strides, dilations, pads }, place) => positions(kernel_shape).map((cell) => {
  const at = cell.map((step, k) => place[k] * strides[k] - pads[k] + step * dilations[k]);
  if (at.some((x, k) => x >= size[k] + pads[k + size.length])) return null;
  return at.every((x, k) => x >= 0 && x < size[k]) ? flatOf(size, at) : -1;
});
const padsAreGiven = ({ attributes: { auto_pad = "NOTSET" } }) => ["NOTSET", "VALID"].includes(auto_pad);

const convolution = (layer, [x, filter, bias], place) => {
  if (!padsAreGiven(layer)) return null;
  const [, , ...size] = x.dims, [maps, depth, ...kernel] = filter.dims, area = product(size), taps = product(kernel);
  const first = Math.floor(place[1] / (maps / (layer.attributes.group ?? 1))) * depth;
  const cells = windowCells(size, layer.attributes, place.slice(2));
  const groups = Array.from({ length: depth }, (_, k) => {
    const places = cells.map((cell) => (cell < 0 || cell === null ? -1 : (first + k) * area + cell));
    const start = (place[1] * depth + k) * taps;
    return { label: `channel ${first + k}`, columns: kernel.at(-1), places, window: places.map((flat) => read(x, flat)), filter: Array.from(filter.data.slice(start, start + taps)) };
  });
  return products(layer.inputs[0], groups, bias && read(bias, place[1]));
};

const products = (from, groups, bias = null, scale = 1) => {
  for (const group of groups) group.sum = add(group.window.map((value, k) => value * group.filter[k]));
  return { kind: "products", from, groups, bias, scale, value: scale * add(groups.map(({ sum }) => sum)) + (bias ?? 0) };
};
const term = (place, value, weight) => ({ label: "", columns: 1, places: [place], window: [value], filter: [weight] });

const fullyConnected = (layer, [x, y, c], place) => {
  const { transA = 0, transB = 0, alpha = 1, beta = 1 } = layer.attributes;
  const [row, column] = place, depth = x.dims[transA ? 0 : 1];
  const terms = Array.from({ length: depth }, (_, k) => {
    const left = flatOf(x.dims, transA ? [k, row] : [row, k]), right = flatOf(y.dims, transB ? [column, k] : [k, column]);
    return term(left, read(x, left), read(y, right));
  });
  return products(layer.inputs[0], terms, c && beta * read(c, broadcast(c.dims, place)), alpha);
};

const matrixProduct = (layer, [x, y], place) => {
  if (x.dims.length < 2 || y.dims.length < 2) return null;
  const [row, column] = place.slice(-2), batch = place.slice(0, -2);
  const start = ({ dims }) => broadcast(dims.slice(0, -2), batch) * product(dims.slice(-2));
  const depth = x.dims.at(-1), width = y.dims.at(-1);
  const terms = Array.from({ length: depth }, (_, k) => {
    const left = start(x) + row * depth + k;
    return term(left, read(x, left), read(y, start(y) + k * width + column));
  });
  return products(layer.inputs[0], terms);
};

// A number that is computed from a window of units: how is "largest", "smallest", "mean" or "sum".
const summary = (from, x, places, columns, how, divisor = places.length) => {
  const window = places.map((flat) => read(x, flat)), known = window.filter((_, k) => places[k] >= 0);
  const value = { largest: Math.max(...known), smallest: Math.min(...known), mean: add(window) / divisor, sum: add(window) }[how];
  return { kind: "window", from, places, columns, window, how, divisor, value };
};

const pooling = (how) => (layer, [x], place) => {
  if (!padsAreGiven(layer)) return null;
  const [, , ...size] = x.dims, start = flatOf(x.dims.slice(0, 2), place) * product(size);
  const all = windowCells(size, layer.attributes, place.slice(2)), cells = all.map((cell) => cell ?? -1);
  const counted = layer.attributes.count_include_pad ? all.filter((cell) => cell !== null) : cells.filter((cell) => cell >= 0);
  return summary(layer.inputs[0], x, cells.map((cell) => (cell < 0 ? -1 : start + cell)), layer.attributes.kernel_shape.at(-1), how, counted.length);
};
const globalPooling = (how) => (layer, [x], place) => {
  const area = product(x.dims.slice(2)), start = flatOf(x.dims.slice(0, 2), place) * area;
  return summary(layer.inputs[0], x, Array.from({ length: area }, (_, k) => start + k), x.dims.at(-1), how);
};
const reduction = (how) => (layer, [x, axes], place) => {
  const { keepdims = 1, axes: listed } = layer.attributes;
  const chosen = (axes ? integers(axes) : listed ?? x.dims.map((_, k) => k)).map((axis) => positive(axis, x.dims)).sort((a, b) => a - b);
  const kept = keepdims ? place : chosen.reduce((full, axis) => full.toSpliced(axis, 0, 0), place);
  const places = positions(chosen.map((axis) => x.dims[axis])).map((cell) => flatOf(x.dims, kept.map((at, axis) => (chosen.includes(axis) ? cell[chosen.indexOf(axis)] : at))));
  return summary(layer.inputs[0], x, places, chosen.length > 1 ? x.dims[chosen.at(-1)] : Math.min(places.length, 12), how);
};

const softmax = (layer, [x], place) => {
  const axis = positive(layer.attributes.axis ?? -1, x.dims);
  const places = Array.from({ length: x.dims[axis] }, (_, k) => flatOf(x.dims, place.with(axis, k)));
  const window = places.map((flat) => read(x, flat)), most = Math.max(...window);
  const powers = window.map((value) => Math.exp(value - most)), chosen = powers[place[axis]];
  return { kind: "softmax", from: layer.inputs[0], places, window, powers, most, at: place[axis], value: chosen / add(powers) };
};

// (x - mean) / sqrt(variance + epsilon) * scale + shift, with the stored mean and variance or those of some units.
const normalised = (layer, x, flat, { mean, variance, scale, shift }, epsilon = 1e-5) => {
  const value = ((read(x, flat) - mean) / Math.sqrt(variance + epsilon)) * scale + shift;
  const rest = Object.entries({ mean, variance, epsilon, scale, shift }).map(([name, number]) => ({ name, value: number }));
  return { kind: "formula", text: "(x − mean) / √(variance + epsilon) · scale + shift", reads: [{ name: "x", from: layer.inputs[0], place: flat, value: read(x, flat) }, ...rest], value };
};
const batchNormalisation = (layer, [x, scale, shift, mean, variance], place) => {
  const [a, b, m, v] = [scale, shift, mean, variance].map((tensor) => read(tensor, place[1]));
  return normalised(layer, x, flatOf(x.dims, place), { mean: m, variance: v, scale: a, shift: b }, layer.attributes.epsilon);
};
const moments = (x, places) => {
  const numbers = places.map((flat) => read(x, flat)), mean = add(numbers) / numbers.length;
  return { mean, variance: add(numbers.map((number) => (number - mean) ** 2)) / numbers.length };
};
const layerNormalisation = (layer, [x, scale, shift], place) => {
  const axis = positive(layer.attributes.axis ?? -1, x.dims), size = product(x.dims.slice(axis)), flat = flatOf(x.dims, place);
  const start = flat - (flat % size), at = { scale: read(scale, broadcast(scale.dims, place)), shift: shift ? read(shift, broadcast(shift.dims, place)) : 0 };
  return normalised(layer, x, flat, { ...moments(x, Array.from({ length: size }, (_, k) => start + k)), ...at }, layer.attributes.epsilon);
};
const instanceNormalisation = (layer, [x, scale, shift], place) => {
  const area = product(x.dims.slice(2)), start = flatOf(x.dims.slice(0, 2), place) * area;
  const all = { ...moments(x, Array.from({ length: area }, (_, k) => start + k)), scale: read(scale, place[1]), shift: read(shift, place[1]) };
  return normalised(layer, x, flatOf(x.dims, place), all, layer.attributes.epsilon);
};
const responseNormalisation = (layer, [x], place) => {
  const { alpha = 1e-4, beta = 0.75, bias = 1, size } = layer.attributes, first = place[1] - Math.floor((size - 1) / 2);
  const channels = Array.from({ length: size }, (_, k) => first + k).filter((channel) => channel >= 0 && channel < x.dims[1]);
  const squares = add(channels.map((channel) => read(x, flatOf(x.dims, place.with(1, channel))) ** 2)), flat = flatOf(x.dims, place), number = read(x, flat);
  const reads = [{ name: "x", from: layer.inputs[0], place: flat, value: number }, ...Object.entries({ squares, bias, alpha, size, beta }).map(([name, value]) => ({ name, value }))];
  return { kind: "formula", text: "x / (bias + alpha / size · squares) ^ beta", reads, value: number / (bias + (alpha / size) * squares) ** beta };
};

// Operators that move numbers: which unit of the input this one is a copy of.
const moved = (from, x, flat, text) => ({ kind: "copy", from, place: flat, text, value: read(x, flat) });
const sameOrder = (text) => (layer, [x], place, flat) => moved(layer.inputs[0], x, flat, text);
const transposition = (layer, [x], place) => {
  const { perm = x.dims.map((_, k) => x.dims.length - 1 - k) } = layer.attributes, source = Array(place.length);
  perm.forEach((axis, k) => { source[axis] = place[k]; });
  return moved(layer.inputs[0], x, flatOf(x.dims, source), "The axes change their order.");
};
const concatenation = (layer, inputs, place) => {
  const axis = positive(layer.attributes.axis, place);
  let at = place[axis], k = 0;
  while (at >= inputs[k].dims[axis]) at -= inputs[k++].dims[axis];
  return moved(layer.inputs[k], inputs[k], flatOf(inputs[k].dims, place.with(axis, at)), `Layers are stacked on each other; this unit is of number ${k + 1} of ${inputs.length}.`);
};
const slice = (layer, [x, starts, , axes, steps], place) => {
  const source = [...place], chosen = axes ? integers(axes) : integers(starts).map((_, k) => k);
  chosen.forEach((axis, k) => {
    const at = positive(axis, x.dims), size = x.dims[at], step = steps ? integers(steps)[k] : 1, start = integers(starts)[k];
    source[at] = Math.min(Math.max(start < 0 ? start + size : start, 0), step > 0 ? size : size - 1) + place[at] * step;
  });
  return moved(layer.inputs[0], x, flatOf(x.dims, source), "A part of the layer is taken.");
};
const padding = (layer, [x, pads, constant, axes], place) => {
  const { mode = "constant" } = layer.attributes, begins = integers(pads), source = [...place];
  (axes ? integers(axes) : x.dims.map((_, k) => k)).forEach((axis, k) => { source[positive(axis, x.dims)] -= begins[k]; });
  const outside = source.some((at, k) => at < 0 || at >= x.dims[k]);
  if (outside && mode === "constant") return { kind: "formula", text: "the number that the padding is filled with", reads: [], value: constant ? read(constant, 0) : 0 };
  const fold = { reflect: (at, n) => (at < 0 ? -at : 2 * n - 2 - at), edge: (at, n) => Math.min(Math.max(at, 0), n - 1), wrap: (at, n) => (at + n) % n }[mode];
  const inner = source.map((at, k) => (at < 0 || at >= x.dims[k] ? fold(at, x.dims[k]) : at));
  return moved(layer.inputs[0], x, flatOf(x.dims, inner), outside ? `A border is added (${mode}).` : "A border is added around these units.");
};
const gathering = (layer, [x, indices], place) => {
  const axis = positive(layer.attributes.axis ?? 0, x.dims), rank = indices.dims.length;
  const index = integers(indices)[flatOf(indices.dims, place.slice(axis, axis + rank))];
  const source = [...place.slice(0, axis), index < 0 ? index + x.dims[axis] : index, ...place.slice(axis + rank)];
  return moved(layer.inputs[0], x, flatOf(x.dims, source), "Some units of the layer are taken.");
};
const splitting = (layer, [x, sizes], place, flat, dims) => {
  const axis = positive(layer.attributes.axis ?? 0, x.dims);
  const each = Math.ceil(x.dims[axis] / (layer.attributes.num_outputs ?? 1)); // the last part may be smaller
  const before = sizes ? add(integers(sizes).slice(0, layer.number)) : layer.number * (layer.attributes.num_outputs ? each : dims[axis]);
  return moved(layer.inputs[0], x, flatOf(x.dims, place.with(axis, place[axis] + before)), "The layer is split into parts.");
};
const sorting = (layer, [x], place) => {
  const { axis: given = -1, largest = 1 } = layer.attributes, axis = positive(given, x.dims);
  const places = Array.from({ length: x.dims[axis] }, (_, k) => flatOf(x.dims, place.with(axis, k)));
  const order = [...places].sort((a, b) => (largest ? -1 : 1) * (read(x, a) - read(x, b)));
  return moved(layer.inputs[0], x, order[place[axis]], `${places.length} units are sorted; this one is number ${place[axis] + 1} from the ${largest ? "largest" : "smallest"} on.`);
};

const reshaped = sameOrder("The same numbers in the same order, under other axes.");
const OPERATORS = {
  ...Object.fromEntries([...Object.keys(FORMULAS), "Gelu"].map((op) => [op, elementwise])),
  Conv: convolution, Gemm: fullyConnected, MatMul: matrixProduct,
  MaxPool: pooling("largest"), AveragePool: pooling("mean"),
  GlobalMaxPool: globalPooling("largest"), GlobalAveragePool: globalPooling("mean"),
  ReduceMean: reduction("mean"), ReduceSum: reduction("sum"), ReduceMax: reduction("largest"), ReduceMin: reduction("smallest"),
  Softmax: softmax, BatchNormalization: batchNormalisation, LayerNormalization: layerNormalisation,
  InstanceNormalization: instanceNormalisation, LRN: responseNormalisation,
  Reshape: reshaped, Flatten: reshaped, Squeeze: reshaped, Unsqueeze: reshaped, Identity: reshaped, Dropout: reshaped,
  Transpose: transposition, Concat: concatenation, Slice: slice, Pad: padding, Gather: gathering, Split: splitting, TopK: sorting,
  Expand: (layer, [x], place) => moved(layer.inputs[0], x, broadcast(x.dims, place), "A unit is repeated."),
};
// The name that a reader knows, where the operator's own is another.
const WORDS = {
  Conv: "convolution", Gemm: "fully connected", MatMul: "matrix product", Relu: "ReLU", MaxPool: "max pooling", AveragePool: "average pooling",
  GlobalAveragePool: "global average pooling", GlobalMaxPool: "global max pooling", ReduceMean: "mean", ReduceSum: "sum", ReduceMax: "maximum", ReduceMin: "minimum",
  Add: "addition", Sub: "subtraction", Mul: "multiplication", Div: "division", Pow: "power", Sqrt: "square root", BatchNormalization: "batch normalization",
  LayerNormalization: "layer normalization", InstanceNormalization: "instance normalization", LRN: "local response normalization", Cast: "as floating point",
  Concat: "concatenation", Transpose: "transposition", Gather: "selection", TopK: "sorting", Gelu: "GELU", LeakyRelu: "leaky ReLU", Pad: "padding", Input: "input",
};

// The model that is shown: its script's content, session, weights and sample; the tensors of the chosen layer; and layer and unit.
const shown = { name: "", data: null, session: null, file: null, weights: {}, given: {}, tensors: {}, layer: 0, unit: 0, first: 0, channels: 0, lanes: new Set() };
const find = (selector) => document.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const button = (text, action) => {
  const made = make("button", { type: "button", className: "plain", textContent: text });
  made.addEventListener("click", action);
  return made;
};
const short = (value) => {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "∞");
  const size = Math.abs(value);
  const text = value === 0 ? "0" : size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
};
// At most seven characters, for a cell of a grid.
const cellText = (value) => (Math.abs(value) < 0.1 && Math.abs(value) >= 1e-3 ? String(Number(value.toPrecision(2))).replace("-", "−") : short(value));
const exact = (value) => String(Number(value.toPrecision(7))).replaceAll("-", "−");
const bracketed = (value) => (value < 0 ? `(${short(value)})` : short(value));
const plus = (value) => (value < 0 ? ` − ${short(-value)}` : ` + ${short(value)}`);

const layers = () => shown.data.layers;
const weight = (name) => {
  if (!(name in shown.weights)) {
    const { offset, dtype, dims } = shown.data.weights[name], kind = ARRAYS[dtype];
    shown.weights[name] = { dims, data: new kind(shown.file.slice(offset, offset + product(dims) * kind.BYTES_PER_ELEMENT).buffer) };
  }
  return shown.weights[name];
};
const tensor = (name) => (name === "" ? undefined : name in shown.data.weights ? weight(name) : shown.given[name] ?? shown.tensors[name]);
const producer = (name) => layers().findIndex(({ output }) => output === name);
const consumers = (name) => layers().filter(({ inputs }) => inputs.includes(name));
const title = ({ name, op, attributes: { kernel_shape } }) => (name ? `${name}: ` : "") + (WORDS[op] ?? op.toLowerCase()) + (kernel_shape ? ` ${kernel_shape.join(" × ")}` : "");
// What a reader must know of a window: "Stride 2, dilation 4, padding 16 before and 0 after."
const windowText = ({ attributes: { kernel_shape, strides = [], dilations = [], pads = [], group = 1 } }) => {
  if (!kernel_shape) return "";
  const half = pads.length / 2, begins = pads.slice(0, half), ends = pads.slice(half), all = (list) => (new Set(list).size === 1 ? list[0] : list.join(" × "));
  const padding = `${begins}` === `${ends}` ? `${all(begins)}` : `${all(begins)} before and ${all(ends)} after`;
  return ` Stride ${all(strides)}, dilation ${all(dilations)}, padding ${padding}${group > 1 ? `, ${group} groups` : ""}.`;
};

// How a tensor is drawn: axes of size 1 dropped, the last two as rows and columns, the others as maps; a vector in lines of 32.
const layout = (name) => {
  const { dims } = tensor(name), sizes = dims.filter((size) => size > 1), picture = name in shown.given && dims.length === 4; // (1, H, W, C)
  if (picture) return { maps: dims[3], rows: dims[1], columns: dims[2], last: true, total: product(dims) };
  if (sizes.length < 2) return { maps: 1, rows: Math.ceil(product(dims) / 32), columns: Math.min(32, product(dims)), vector: true, total: product(dims) };
  const [rows, columns] = sizes.slice(-2), maps = product(sizes.slice(0, -2));
  return { maps, rows, columns, total: product(dims), lanes: maps === 1 && shown.lanes.has(name) };
};
const unitAt = ({ maps, rows, columns, last }, [map, row, column]) => (last ? (row * columns + column) * maps + map : (map * rows + row) * columns + column);
const whereIs = ({ maps, rows, columns, last }, unit) => (last
  ? [unit % maps, Math.floor(unit / maps / columns), Math.floor(unit / maps) % columns]
  : [Math.floor(unit / rows / columns), Math.floor(unit / columns) % rows, unit % columns]);
const describePlace = (kind, unit) => {
  if (kind.vector) return kind.total > 1 ? `unit ${unit}` : "the only unit";
  const [map, row, column] = whereIs(kind, unit);
  return kind.lanes ? `channel ${row}, step ${column}` : (kind.maps > 1 ? `map ${map}, ` : "") + `row ${row}, column ${column}`;
};

// The tensors (1, channels, steps) of convolutions over time.
const findLanes = (all) => {
  const lanes = new Set();
  for (const { op, attributes, inputs, output } of all) {
    if (op === "Conv" && attributes.kernel_shape.length === 1) lanes.add(inputs[0]).add(output);
    else if (OPERATORS[op] === elementwise && inputs.some((name) => lanes.has(name))) lanes.add(output);
  }
  return lanes;
};

// The tensors that explain a layer: what it reads and writes, and what follows it at the same place.
const followers = (layer) => {
  const chain = [];
  for (let at = layer; chain.length < 6;) {
    const [next, ...others] = consumers(at.output);
    if (others.length || OPERATORS[next?.op] !== elementwise || product(next.dims) !== product(at.dims)) break;
    chain.push(at = next);
  }
  return chain;
};
const compute = async (layer) => {
  const chain = [layer, ...followers(layer)];
  const names = new Set([shown.data.answer, ...chain.flatMap(({ inputs, output }) => [...inputs, output])]);
  const wanted = [...names].filter((name) => name && !(name in shown.data.weights) && !(name in shown.given));
  const feeds = Object.fromEntries(Object.entries(shown.given).map(([name, { dtype, data, dims }]) => [name, new ort.Tensor(dtype, data, dims)]));
  const answers = await shown.session.run(feeds, wanted);
  shown.tensors = Object.fromEntries(Object.entries(answers).map(([name, { data, dims }]) => [name, { data, dims: [...dims] }]));
};
const explain = (layer, unit) => {
  const { dims } = tensor(layer.output), explainer = OPERATORS[layer.op];
  return explainer ? explainer(layer, layer.inputs.map(tensor), placeOf(dims, unit), unit, dims) : null;
};

// Pictures: red is positive, blue is negative, and full colour is the largest absolute value of the layer.
const [POSITIVE, NEGATIVE] = ["--positive", "--negative"].map(tone);
const largest = (data) => {
  let most = 0;
  for (const value of data) most = Math.max(most, Math.abs(Number(value)));
  return most;
};
const drawMap = (name, map, most) => {
  const kind = layout(name), { data } = tensor(name), { rows, columns } = kind;
  const canvas = make("canvas", { width: columns, height: rows }), image = new ImageData(columns, rows);
  for (let cell = 0; cell < rows * columns; cell++) {
    const unit = unitAt(kind, [map, Math.floor(cell / columns), cell % columns]);
    if (unit >= kind.total) break;
    const value = Number(data[unit]);
    image.data.set(kind.last ? [value, value, value, 255] : [...(value < 0 ? NEGATIVE : POSITIVE), 255 * Math.abs(value) / (most || 1)], 4 * cell);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
};
const frame = (kind, units, className) => {
  const cells = units.map((unit) => whereIs(kind, unit)), [rows, columns] = [1, 2].map((axis) => cells.map((cell) => cell[axis]));
  const made = make("span", { className }), part = (low, high, size) => [`${100 * low / size}%`, `${100 * (high - low + 1) / size}%`];
  [made.style.top, made.style.height] = part(Math.min(...rows), Math.max(...rows), kind.rows);
  [made.style.left, made.style.width] = part(Math.min(...columns), Math.max(...columns), kind.columns);
  return made;
};

const MAPS = 64, CHANNELS = 3, TERMS = 12; // shown at a time
const showMaps = () => {
  const layer = layers()[shown.layer], kind = layout(layer.output), most = largest(tensor(layer.output).data);
  const chosen = whereIs(kind, shown.unit)[0];
  shown.first = Math.floor(chosen / MAPS) * MAPS;
  const width = kind.vector ? kind.columns * 24 : kind.maps === 1 ? Math.max(256, Math.min(720, kind.columns * 10)) : Math.min(224, Math.max(kind.maps > 8 ? 84 : 128, kind.columns * 4));
  const maps = Array.from({ length: Math.min(MAPS, kind.maps - shown.first) }, (_, k) => {
    const map = shown.first + k, canvas = drawMap(layer.output, map, most), holder = make("span", { className: "map-of" }, canvas);
    holder.style.width = `${width}px`;
    holder.dataset.map = map;
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect(), part = (at, start, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at - start) / size * count)));
      choose(shown.layer, unitAt(kind, [map, part(event.clientY, box.top, box.height, kind.rows), part(event.clientX, box.left, box.width, kind.columns)]));
    });
    return holder;
  });
  find("#maps").replaceChildren(...maps);
  const pages = Math.ceil(kind.maps / MAPS), page = shown.first / MAPS;
  const turn = (to) => choose(shown.layer, unitAt(kind, [to * MAPS, ...whereIs(kind, shown.unit).slice(1)]));
  find("#pages").replaceChildren(...(pages > 1 ? [`Maps ${shown.first} to ${shown.first + maps.length - 1} of ${kind.maps} `,
    ...(page ? [button("Previous maps", () => turn(page - 1))] : []), ...(page + 1 < pages ? [button("Next maps", () => turn(page + 1))] : [])] : []));
  const what = kind.vector ? `${kind.total} ${kind.total > 1 ? "units" : "unit"}` : kind.maps > 1 ? `${kind.maps} maps of ${kind.rows} × ${kind.columns} units` : `${kind.rows} rows of ${kind.columns} units`;
  const lanes = kind.lanes ? " Each row is a channel, each column a step in time." : "";
  find("#layer-title").textContent = title(layer);
  find("#layer-text").textContent = `${what}.${lanes}${windowText(layer)} ${kind.last ? "Pixels from 0 (black) to 255 (white)." : `Red is positive, blue is negative; full colour is ${short(most)}.`} Click a unit, or use the arrow keys.`;
  ["map", "row", "column"].forEach((axis, k) => {
    const field = find(`#at-${axis}`), count = kind.vector ? (k === 2 ? kind.total : 1) : [kind.maps, kind.rows, kind.columns][k];
    field.max = count - 1;
    field.parentElement.hidden = count === 1;
  });
  find("#at-row").previousSibling.textContent = kind.lanes ? "Channel " : "Row ";
  find("#at-column").previousSibling.textContent = kind.vector ? "Unit " : kind.lanes ? "Step " : "Column ";
};
const markUnit = () => {
  const layer = layers()[shown.layer], kind = layout(layer.output), place = whereIs(kind, shown.unit);
  find("#maps .here")?.remove();
  find(`#maps [data-map="${place[0]}"]`).append(frame(kind, [shown.unit], "here"));
  ["map", "row", "column"].forEach((axis, k) => { find(`#at-${axis}`).value = kind.vector && k === 2 ? shown.unit : place[k]; });
};

// A grid of numbers; `marked` is outlined, cells in the padding are dotted, and a click goes to the unit that was read.
const grid = (caption, values, columns, { from = "", places = [], marked = -1 } = {}) => {
  const most = largest(values) || 1, rows = Array.from({ length: Math.ceil(values.length / columns) }, (_, k) => values.slice(k * columns, (k + 1) * columns));
  const cells = make("div", { className: "cells" });
  cells.style.setProperty("--columns", columns);
  cells.setAttribute("role", "img");
  cells.setAttribute("aria-label", `${caption}: ${rows.map((row) => row.map(short).join(", ")).join("; ")}`);
  values.forEach((value, k) => {
    const cell = make("span", { textContent: cellText(value), className: value < 0 ? "minus" : "plus", title: exact(value) });
    cell.style.setProperty("--share", Math.abs(value) / most);
    if (places[k] === -1) cell.classList.add("outside");
    if (k === marked) cell.classList.add("marked");
    if (places[k] >= 0 && goesTo(from)) {
      cell.classList.add("link");
      cell.addEventListener("click", () => choose(producer(from), places[k]));
    }
    cells.append(cell);
  });
  return make("figure", {}, make("figcaption", { textContent: places.includes(-1) ? `${caption} (dotted: padding)` : caption }), make("div", { className: "cells-box" }, cells));
};
const goesTo = (name) => producer(name) >= 0; // a layer of the list: not a weight, not a whole number
// The button that was pressed is gone afterwards, so the focus goes to the layer.
const jump = async (layer, unit) => {
  await choose(layer, unit);
  find("#layer-title").focus();
};
const go = (text, from, place) => button(text, () => jump(producer(from), place));
const sourceName = (name) => (name in shown.data.weights ? `the weight ${name}` : goesTo(name) ? `“${title(layers()[producer(name)])}”` : name);
const inSource = (from, place) => (goesTo(from) ? `${describePlace(layout(from), place)} of ${sourceName(from)}` : sourceName(from));

// A map of the layer that is read, with a frame around the window.
const sourceMap = (from, places) => {
  const kind = layout(from), units = places.filter((flat) => flat >= 0);
  if (!units.length || kind.vector) return [];
  const map = whereIs(kind, units[0])[0], holder = make("span", { className: "map-of" }, drawMap(from, map, largest(tensor(from).data)), frame(kind, units, "here"));
  holder.style.width = `${Math.min(160, Math.max(112, kind.columns * 3))}px`;
  return [make("figure", {}, make("figcaption", { textContent: kind.maps > 1 ? `Map ${map} that it reads` : "What it reads" }), holder)];
};
const sign = (text) => make("span", { className: "sign", textContent: text });

const renderProducts = ({ from, groups, bias, scale, value }) => {
  const count = add(groups.map(({ window }) => window.length)), sum = add(groups.map((group) => group.sum));
  const equation = `Sum of ${count} ${count > 1 ? "products" : "product"} ${short(sum)}${scale === 1 ? "" : ` · ${short(scale)}`}${bias === null ? "" : `${plus(bias)} (bias)`} = ${short(value)}`;
  const parts = [make("p", { className: "equation", textContent: equation })];
  const order = groups.map((_, k) => k).sort((a, b) => Math.abs(groups[b].sum) - Math.abs(groups[a].sum));
  const single = groups.every(({ window }) => window.length === 1), step = single ? TERMS : CHANNELS;
  const seen = order.slice(0, step * (shown.channels + 1));
  if (single) {
    parts.push(termTable(from, seen.map((k) => groups[k])));
  } else {
    if (groups.length > 1) parts.push(make("p", { textContent: `The filter covers ${groups.length} channels of its input. Those that contribute most come first.` }));
    for (const k of seen) {
      const { label, columns, places, window, filter, sum: own } = groups[k];
      parts.push(make("h3", { textContent: `${label[0].toUpperCase()}${label.slice(1)} of the input: its products add up to ${short(own)}` }), make("div", { className: "numbers" },
        ...sourceMap(from, places), grid("Window", window, columns, { from, places }), sign("×"), grid("Filter", filter, columns), sign("="),
        grid("Products", window.map((number, j) => number * filter[j]), columns)));
    }
  }
  if (seen.length < groups.length) {
    const left = groups.length - seen.length, rest = add(order.slice(seen.length).map((k) => groups[k].sum));
    parts.push(make("p", {}, `The other ${left} add up to ${short(rest)}. `, button(`Show ${Math.min(step, left)} more`, () => { shown.channels++; showUnit(); find("#how").focus({ preventScroll: true }); })));
  }
  const best = groups.flatMap(({ places, window, filter }) => places.map((place, k) => [Math.abs(window[k] * filter[k]), place])).filter(([, place]) => place >= 0).reduce((a, b) => (b[0] > a[0] ? b : a), [0, -1]);
  if (best[1] >= 0 && goesTo(from)) parts.push(make("p", {}, go("Go to the unit with the largest product", from, best[1])));
  return parts;
};
const termTable = (from, terms) => {
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...["reads", "value", "weight", "product"].map((text, k) => make("th", { scope: "col", textContent: text, className: k ? "number" : "" })))));
  const body = table.createTBody();
  for (const { places: [place], window: [value], filter: [factor] } of terms) {
    body.append(make("tr", {}, make("th", { scope: "row", textContent: goesTo(from) ? describePlace(layout(from), place) : `${place}` }),
      ...[value, factor, value * factor].map((number, k) => {
        const cell = make("td", { className: "number", textContent: short(number) });
        if (k === 2) cell.classList.add(number < 0 ? "minus" : "plus");
        cell.style.setProperty("--share", Math.abs(number) / largest(terms.map(({ sum }) => sum)));
        return cell;
      })));
  }
  const box = make("div", { className: "scroll", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Products");
  return box;
};
const renderWindow = ({ from, places, columns, window, how, divisor, value }) => {
  const best = { largest: value, smallest: value }[how], marked = best === undefined ? -1 : window.findIndex((number, k) => number === best && places[k] >= 0);
  const equation = how === "mean" ? `Mean: sum ${short(value * divisor)} / ${divisor} = ${short(value)}` : how === "sum" ? `Sum of ${window.length} = ${short(value)}` : `The ${how} of ${places.filter((flat) => flat >= 0).length} = ${short(value)}`;
  const parts = [make("p", { className: "equation", textContent: equation })], many = window.length > 400;
  if (!many) parts.push(make("div", { className: "numbers" }, ...sourceMap(from, places), grid("Window", window, columns, { from, places, marked })));
  else parts.push(make("div", { className: "numbers" }, ...sourceMap(from, places)), make("p", { textContent: `${window.length} units are too many to print.` }));
  if (marked >= 0 && goesTo(from)) parts.push(make("p", {}, go(`Go to the ${how} unit`, from, places[marked])));
  return parts;
};
const renderSoftmax = ({ places, window, powers, at, most, value, from }) => {
  const { labels } = shown.data, named = labels.length === window.length;
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...["unit", "x", "e^(x − largest)", "share"].map((text, k) => make("th", { scope: "col", textContent: text, className: k ? "number" : "" })))));
  const body = table.createTBody(), total = add(powers);
  const order = window.map((_, k) => k).sort((a, b) => (b === at) - (a === at) || powers[b] - powers[a]).slice(0, TERMS);
  for (const k of order) body.append(make("tr", {}, make("th", { scope: "row", textContent: named ? labels[k] : `unit ${k}` }), ...[window[k], powers[k], powers[k] / total].map((number) => make("td", { className: "number", textContent: short(number) }))));
  const box = make("div", { className: "scroll", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Softmax");
  return [make("p", { className: "equation", textContent: `e^(x − ${bracketed(most)}) / sum over ${window.length} units = ${short(powers[at])} / ${short(total)} = ${short(value)}` }), box, ...(goesTo(from) ? [make("p", {}, go("Go to its unit x", from, places[at]))] : [])];
};
const filled = ({ text, reads }) => text.replace(/[a-z]+/g, (word) => { const found = reads.find(({ name }) => name === word); return found ? bracketed(found.value) : word; }).replace(/\(\(([^()]*)\)\)/g, "($1)");
const renderFormula = (found) => {
  const parts = [make("p", { className: "equation", textContent: found.reads.length ? `${found.text} = ${filled(found)} = ${short(found.value)}` : `${found.text}: ${short(found.value)}` })];
  const list = make("dl");
  for (const { name, from, place, value } of found.reads) {
    const known = from !== undefined && goesTo(from);
    list.append(make("dt", { textContent: name }), make("dd", {}, `${exact(value)}${from === undefined ? "" : `, ${inSource(from, place)} `}`, ...(known ? [go("Go there", from, place)] : [])));
  }
  return [...parts, ...(found.reads.length ? [list] : [])];
};
const renderCopy = ({ from, place, text, value }) => [make("p", { className: "equation", textContent: `${text} This unit is ${inSource(from, place)} = ${short(value)}` }), ...(goesTo(from) ? [make("p", {}, go("Go there", from, place))] : [])];
const RENDERERS = { products: renderProducts, window: renderWindow, softmax: renderSoftmax, formula: renderFormula, copy: renderCopy };

const showUnit = () => {
  const layer = layers()[shown.layer], kind = layout(layer.output), file = read(tensor(layer.output), shown.unit), place = describePlace(kind, shown.unit);
  const found = layer.op === "Input" ? null : explain(layer, shown.unit);
  find("#unit-title").textContent = `${title(layer)}, ${place}`;
  const named = layer.output === shown.data.answer && shown.data.labels.length ? ` (class ${shown.data.labels[shown.unit]})` : "";
  find("#said").textContent = `${place[0].toUpperCase()}${place.slice(1)}${named}: ${short(file)}`;
  const parts = found ? RENDERERS[found.kind](found) : [make("p", { textContent: layer.op === "Input" ? "A number of the input, as the file reads it." : `This page does not explain the operator ${layer.op}. It reads ${layer.inputs.filter(Boolean).map(sourceName).join(", ")}.` })];
  const difference = found && Math.abs(found.value - file);
  if (found) parts.push(make("p", { className: "quiet", textContent: `Computed here in float64: ${exact(found.value)}. The file's own number, in float32: ${exact(file)}. Difference: ${difference ? difference.toExponential(1) : 0}.` }));
  find("#how").replaceChildren(...parts);
  find("#unit").dataset.difference = difference ?? "";
  for (const box of document.querySelectorAll("#how .cells-box")) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // to scroll it by keyboard
  showFollowers(layer);
  history.replaceState(null, "", `#${new URLSearchParams({ model: shown.name, layer: layer.output, unit: shown.unit })}`);
  return { value: found?.value, file };
};
const showFollowers = (layer) => {
  const list = make("ol"), chain = followers(layer);
  for (const next of chain) {
    const found = explain(next, shown.unit);
    if (!found) break;
    list.append(make("li", {}, `${title(next)}: ${filled(found)} = ${short(found.value)} `, button("Go there", () => jump(layers().indexOf(next), shown.unit))));
  }
  const last = chain.at(-1) ?? layer;
  for (const next of consumers(last.output)) list.append(make("li", {}, `read by ${title(next)} `, button("Go there", () => jump(layers().indexOf(next), nearest(next, shown.unit, tensor(last.output).dims)))));
  find("#then").replaceChildren(...(list.childElementCount ? [make("h3", { textContent: "Then" }), list] : []));
};
// A unit of a layer that lies where a unit of its input lies.
const nearest = ({ dims }, unit, from) => {
  if (dims.length !== from.length) return Math.min(unit, product(dims) - 1);
  return flatOf(dims, placeOf(from, unit).map((at, k) => Math.min(dims[k] - 1, Math.floor(at * dims[k] / from[k]))));
};

// One choice at a time, and of those that wait only the newest.
let before = Promise.resolve(), newest = 0;
const choose = (layer, unit) => {
  const mine = ++newest, now = () => (mine === newest ? chooseNow(layer, unit) : undefined);
  return (before = before.then(now, now));
};
const chooseNow = async (layer, unit) => {
  const other = layer !== shown.layer || !(layers()[layer].output in { ...shown.tensors, ...shown.given });
  if (other) {
    await compute(layers()[layer]);
    shown.layer = layer;
    find("#layer").selectedIndex = layer;
  }
  const { data } = tensor(layers()[layer].output);
  shown.unit = unit ?? strongest(data);
  shown.unit = Math.min(Math.max(0, shown.unit), data.length - 1);
  shown.channels = 0;
  const first = Math.floor(whereIs(layout(layers()[layer].output), shown.unit)[0] / MAPS) * MAPS;
  if (other || first !== shown.first || !find("#maps").childElementCount) showMaps();
  markUnit();
  return showUnit();
};
const strongest = (data) => data.reduce((best, value, k) => (Math.abs(Number(value)) > Math.abs(Number(data[best])) ? k : best), 0);

const setSample = async (given, text) => {
  shown.given = given;
  shown.tensors = {};
  find("#maps").replaceChildren();
  drawGiven(Object.values(given)[0]);
  await choose(shown.layer, shown.unit);
  const { data } = tensor(shown.data.answer), { labels } = shown.data, top = strongest(data);
  find("#answer").textContent = `${text}. ${labels.length ? `The network predicts class ${labels[top]}, probability ${Number(data[top]).toFixed(3)}.` : `The first number of the network's output ${shown.data.answer} is ${short(Number(data[0]))}.`}`;
};
const drawGiven = ({ data, dims }) => {
  const canvas = find("#given"), pen = canvas.getContext("2d");
  if (dims.length === 4) {
    const [, rows, columns, channels] = dims;
    Object.assign(canvas, { width: columns, height: rows, className: "" });
    const image = new ImageData(columns, rows);
    for (let k = 0; k < rows * columns; k++) image.data.set([...[0, 1, 2].map((c) => data[k * channels + Math.min(c, channels - 1)]), 255], 4 * k);
    return pen.putImageData(image, 0, 0);
  }
  Object.assign(canvas, { width: 300, height: 100, className: "line" });
  const [, steps, columns] = dims, series = Array.from({ length: steps }, (_, k) => data[k * columns]), low = Math.min(...series), span = Math.max(...series) - low || 1;
  pen.lineWidth = 2;
  pen.strokeStyle = getComputedStyle(canvas).color;
  series.forEach((value, k) => pen.lineTo(5 + 290 * k / (steps - 1), 95 - 90 * (value - low) / span));
  pen.stroke();
};

const load = (name) => new Promise((resolve, reject) => {
  const script = make("script", { src: `inside/${encodeURIComponent(name)}.js`, onload: resolve, onerror: () => reject(new Error(`inside/${name}.js is missing beside this page; run python -m pipeline.report again`)) });
  document.head.append(script);
});
const open = async (name, { layer, unit, input } = {}) => {
  find("#state").textContent = `Loading ${name} …`;
  if (!(name in INSIDE)) await load(name);
  await shown.session?.release();
  const data = INSIDE[name], file = await inflate(bytes(data.onnx), "gzip"), samples = await Promise.all(data.samples.map(unpack));
  const inputs = data.inputs.map((output) => ({ op: "Input", name: "", node: "", inputs: [], output, attributes: {}, number: 0, dims: [] }));
  Object.assign(shown, { name, data: { ...data, layers: [...inputs, ...data.layers] }, file, weights: {}, tensors: {}, given: {}, lanes: findLanes(data.layers) });
  // Without fusion, so that each operator's own output exists.
  shown.session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" });
  find("#layer").replaceChildren(...layers().map((one) => new Option(`${one.name || one.op === "Input" ? "" : "\u2003"}${title(one)}${one.dims.length ? ` → ${one.dims.slice(1).join(" × ")}` : ""}`)));
  find("#model").value = name;
  const weighed = layers().findIndex(({ op }) => ["Conv", "Gemm", "MatMul"].includes(op)), asked = layers().findIndex(({ output }) => output === layer);
  shown.layer = asked >= 0 ? asked : Math.max(weighed, 0);
  shown.unit = unit;
  const row = (k) => Object.fromEntries(samples.map(({ dtype, shape, data: all }, j) => {
    const dims = [1, ...shape.slice(1)], size = product(dims);
    return [data.inputs[j], { dtype, dims, data: all.slice(k * size, (k + 1) * size) }];
  }));
  const what = samples[0].shape.length === 4 ? "Test image" : "Series", count = samples[0].shape[0];
  find("#samples").replaceChildren(...Array.from({ length: count }, (_, k) => button(`${what} ${k + 1}`, () => setSample(row(k), `${what} ${k + 1} of the file`))));
  const first = row(0), mine = input && ownInput(first[data.inputs[0]], input);
  await (mine ? setSample({ ...first, [data.inputs[0]]: mine }, "Your input from the Live page") : setSample(first, `${what} 1 of the file`));
  find("#state").textContent = `${name} runs in this page.`;
};
// The input in the page's address, of the sample's type and size; undefined if it is something else.
const ownInput = ({ dtype, dims }, text) => {
  let given;
  try { given = bytes(text); } catch { return undefined; }
  const kind = ARRAYS[dtype];
  return given.length === product(dims) * kind.BYTES_PER_ELEMENT ? { dtype, dims, data: new kind(given.buffer) } : undefined;
};

const keys = (event) => {
  const kind = layout(layers()[shown.layer].output), place = whereIs(kind, shown.unit);
  const [axis, step] = { ArrowLeft: [2, -1], ArrowRight: [2, 1], ArrowUp: [1, -1], ArrowDown: [1, 1], PageUp: [0, -1], PageDown: [0, 1] }[event.key] ?? [];
  if (axis === undefined) return;
  event.preventDefault();
  place[axis] = Math.min([kind.maps, kind.rows, kind.columns][axis] - 1, Math.max(0, place[axis] + step));
  choose(shown.layer, Math.min(kind.total - 1, unitAt(kind, place)));
};
const typed = () => {
  const kind = layout(layers()[shown.layer].output);
  const place = ["map", "row", "column"].map((axis) => { const field = find(`#at-${axis}`); return Math.min(field.max, Math.max(0, Math.trunc(field.value) || 0)); });
  choose(shown.layer, kind.vector ? place[2] : unitAt(kind, place));
};
const failed = (error) => {
  find("#state").textContent = `This browser cannot run it: ${error.message}`;
  throw error;
};
const begin = async () => {
  const names = [...find("#model").options].map(({ value }) => value), asked = new URLSearchParams(location.hash.slice(1));
  const name = names.includes(asked.get("model")) ? asked.get("model") : names[0];
  // One network after the other: a session that opens late must not meet the data of the next one.
  find("#model").addEventListener("change", ({ target }) => { const { value } = target; inside.ready = inside.ready.then(() => open(value)).catch(failed); });
  find("#layer").addEventListener("change", ({ target }) => choose(target.selectedIndex));
  find("#maps").addEventListener("keydown", keys);
  for (const axis of ["map", "row", "column"]) find(`#at-${axis}`).addEventListener("change", typed);
  await startRuntime();
  await open(name, { layer: asked.get("layer"), unit: asked.has("unit") ? Number(asked.get("unit")) || 0 : undefined, input: asked.get("input") });
};
const inside = { choose, open, shown, layers, operators: OPERATORS, ready: null };
addEventListener("load", () => { inside.ready = begin().catch(failed); });
