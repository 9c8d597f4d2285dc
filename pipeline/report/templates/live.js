// The shipped files at work: onnxruntime-web on what the reader draws or drags. Geometry as serve/ has it.
// Pillow's bilinear resize of 8-bit pixels, bit for bit: triangle weights in 22 binary digits, rows first, then columns
// (of squares: which pass comes first depends on the shape).
const weights = (from, to) => {
  const scale = from / to, support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5)), end = Math.min(from, Math.trunc(centre + support + 0.5));
    const raw = Array.from({ length: end - first }, (_, x) => Math.max(0, 1 - Math.abs((x + first - centre + 0.5) / support)));
    const sum = raw.reduce((a, b) => a + b, 0);
    return [first, raw.map((w) => Math.trunc(0.5 + (w / sum) * 2 ** 22))];
  });
};
const pass = (image, lines, from, to) => { // lines of `from` pixels -> lines of `to`, transposed
  const out = new Uint8Array(lines * to);
  weights(from, to).forEach(([first, taps], k) => {
    for (let line = 0; line < lines; line++) {
      const sum = taps.reduce((total, tap, x) => total + tap * image[line * from + first + x], 2 ** 21);
      out[k * lines + line] = Math.min(255, Math.floor(sum / 2 ** 22));
    }
  });
  return out;
};
const resize = (image, side, to) => pass(pass(image, side, side, to), to, side, to);

const sessions = {};
const run = async (name, input, shape) => {
  const { session } = sessions[name];
  const tensor = new ort.Tensor(input instanceof Uint8Array ? "uint8" : "float32", input, shape);
  const answers = await session.run({ [session.inputNames[0]]: tensor });
  return Object.fromEntries(Object.entries(answers).map(([output, { data }]) => [output, data]));
};

const replay = async ({ name, document: { golden } }, section) => {
  const given = await unpack(golden.input);
  const answers = await run(name, given.data, given.shape);
  let worst = 0;
  for (const [output, packed] of Object.entries(golden.outputs)) {
    if (!(output in answers)) continue; // of a graph that predictions do not need, such as a gradient
    const expected = await unpack(packed);
    expected.data.forEach((value, k) => { worst = Math.max(worst, Math.abs(Number(value) - Number(answers[output][k]))); });
  }
  section.dataset.difference = worst;
  section.querySelector(".replay").textContent = `The file's ${given.shape[0]} golden samples, replayed here: they differ from the recorded outputs by ${worst.toExponential(1)} at most (${golden.atol.toExponential(0)} are allowed).`;
  return given;
};

// The page that computes each unit again, opened with the input that is shown here.
const insideLink = (name, input) => {
  const text = btoa(String.fromCharCode(...new Uint8Array(input.slice().buffer)));
  return `inside.html#${new URLSearchParams({ model: name, input: text })}`;
};

const button = (text, action) => {
  const made = Object.assign(document.createElement("button"), { type: "button", className: "plain", textContent: text });
  made.addEventListener("click", action);
  return made;
};

const paint = (canvas, values, side, colour) => {
  const pen = canvas.getContext("2d"), cell = canvas.width / side;
  values.forEach((value, k) => {
    pen.fillStyle = colour(value);
    pen.fillRect((k % side) * cell, Math.floor(k / side) * cell, Math.ceil(cell), Math.ceil(cell));
  });
};

const classifier = (model, section, golden) => {
  const { labels, input: { size } } = model.document;
  const FINE = 32, COARSE = 8;
  const ink = new Uint8Array(FINE * FINE);
  const pad = section.querySelector(".pad"), rows = section.querySelector(".bars tbody");
  const bars = labels.map((label) => {
    const row = rows.insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = label;
    const bar = document.createElement("span");
    row.append(head);
    row.insertCell().append(bar);
    return [bar, row.insertCell()];
  });
  const small = () => Uint8Array.from({ length: COARSE * COARSE }, (_, k) => {
    let dots = 0;
    for (let y = 0; y < 4; y++) for (let x = 0; x < 4; x++) dots += ink[(4 * Math.floor(k / COARSE) + y) * FINE + 4 * (k % COARSE) + x];
    return Math.round(dots * 255 / 16);
  });
  const map = section.querySelector(".map");
  const grey = (value) => `rgb(${value} ${value} ${value})`;
  const show = (probabilities, image) => {
    const top = probabilities.indexOf(Math.max(...probabilities));
    bars.forEach(([bar, cell], k) => {
      bar.style.width = `${100 * probabilities[k]}%`;
      bar.className = k === top ? "top" : "";
      cell.textContent = probabilities[k].toFixed(3);
    });
    paint(section.querySelector(".seen"), image, size[1], grey);
    return top;
  };
  // What a prediction depends on: what inverting each of 8 x 8 blocks of the image takes from its probability.
  const judge = async (image) => {
    const probabilities = Array.from((await run(model.name, image, [1, ...size, 1])).probabilities);
    const top = show(probabilities, image);
    const inverted = new Uint8Array(COARSE * COARSE * image.length);
    for (let k = 0; k < COARSE * COARSE; k++) {
      inverted.set(image.map((value, place) => {
        const [row, column] = [Math.floor(place / size[1]), place % size[1]];
        return Math.floor(row * COARSE / size[0]) * COARSE + Math.floor(column * COARSE / size[1]) === k ? 255 - value : value;
      }), k * image.length);
    }
    const all = (await run(model.name, inverted, [COARSE * COARSE, ...size, 1])).probabilities;
    const falls = Array.from({ length: COARSE * COARSE }, (_, k) => probabilities[top] - all[k * labels.length + top]);
    map.getContext("2d").clearRect(0, 0, map.width, map.height);
    const most = Math.max(...falls.map(Math.abs), 1e-6);
    paint(map, falls, COARSE, (fall) => `rgb(${tone(fall > 0 ? "--positive" : "--negative").join(" ")} / ${Math.abs(fall) / most})`);
    section.querySelector(".most").textContent = most.toFixed(3);
  };
  let shown = null; // the number of a test image, until the reader draws
  const one = size[0] * size[1];
  const examples = Array.from({ length: golden.shape[0] }, (_, k) => golden.data.slice(k * one, (k + 1) * one));
  const answer = latest(async () => {
    const drawn = shown === null;
    const image = drawn ? resize(small(), COARSE, size[0]) : examples[shown];
    if (drawn) paint(pad, ink, FINE, (dot) => grey(255 * dot));
    else paint(pad, image, size[1], grey);
    const what = drawn ? "your drawing" : `test image ${shown + 1} of the file`;
    section.querySelector(".shown").textContent = drawn ? "Classified: your drawing." : `Classified: ${what}. Draw on it to begin your own digit.`;
    pad.setAttribute("aria-label", `Drawing pad, which shows ${what}. Arrow keys move the pen, space draws.`);
    section.querySelector(".look").href = insideLink(model.name, image);
    await judge(image);
  });
  const dot = (x, y) => {
    for (let j = -1; j <= 1; j++) for (let i = -1; i <= 1; i++) {
      const [row, column] = [Math.floor(y) + j, Math.floor(x) + i];
      if (row >= 0 && row < FINE && column >= 0 && column < FINE) ink[row * FINE + column] = 1;
    }
  };
  let last = null;
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * FINE, (event.clientY - box.top) / box.height * FINE];
  };
  const stroke = (event) => {
    const here = at(event), from = last ?? here, steps = Math.ceil(Math.hypot(here[0] - from[0], here[1] - from[1])) + 1;
    for (let k = 0; k <= steps; k++) dot(from[0] + (here[0] - from[0]) * k / steps, from[1] + (here[1] - from[1]) * k / steps);
    last = here;
    shown = null;
    answer();
  };
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); last = null; stroke(event); });
  pad.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  const pen = [16, 4], moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let down = false;
  pad.addEventListener("keydown", (event) => {
    if (event.key === " ") down = !down;
    else if (moves[event.key]) moves[event.key].forEach((step, k) => { pen[k] = Math.min(FINE - 1, Math.max(0, pen[k] + step)); });
    else return;
    event.preventDefault();
    if (down) dot(...pen);
    shown = null;
    answer();
    const look = pad.getContext("2d");
    look.strokeStyle = `rgb(${tone("--wrong").join(" ")})`;
    look.strokeRect((pen[0] - 1) * 9, (pen[1] - 1) * 9, 27, 27);
  });
  section.querySelector(".clear").addEventListener("click", () => { ink.fill(0); shown = null; answer(); });
  section.querySelector(".examples").append(...examples.map((_, k) => button(`Test image ${k + 1}`, () => { ink.fill(0); shown = k; answer(); })));
  shown = 0;
  return answer();
};

const forecaster = (model, section, golden) => {
  const { input: { context }, forecast: { horizon, quantiles } } = model.document;
  const svg = section.querySelector(".series"), [width, height] = [900, 300]; // its viewBox
  const samples = Array.from({ length: golden.shape[0] }, (_, k) => Array.from(golden.data.slice(k * context, (k + 1) * context)));
  let shown = 0, history = [...samples[0]], chosen = context - 1;
  const every = samples.flat(), middle = (Math.max(...every) + Math.min(...every)) / 2, span = (Math.max(...every) - Math.min(...every)) * 0.9;
  const x = (step) => 10 + step / (context + horizon - 1) * (width - 20);
  const y = (value) => height / 2 - (value - middle) / span * (height / 2 - 10);
  const shape = (tag, attributes) => {
    const made = document.createElementNS(svg.namespaceURI, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  const band = shape("polygon", { class: "band" }), past = shape("polyline", { class: "past" });
  const ahead = shape("polyline", { class: "ahead" }), mark = shape("circle", { class: "mark", r: 5 });
  svg.setAttribute("aria-valuemax", context);
  const points = (values, start) => values.map((value, k) => `${x(start + k).toFixed(1)},${y(value).toFixed(1)}`);
  const answer = latest(async () => {
    const found = await run(model.name, Float32Array.from(history), [1, context, 1]);
    const yhat = Array.from(found.forecast), ends = [0, quantiles.length - 1].map((q) => yhat.map((_, k) => found.quantiles[k * quantiles.length + q]));
    past.setAttribute("points", points(history, 0).join(" "));
    ahead.setAttribute("points", [points([history[context - 1]], context - 1), ...points(yhat, context)].join(" "));
    band.setAttribute("points", [...points(ends[0], context), ...points(ends[1], context).reverse()].join(" "));
    mark.setAttribute("cx", x(chosen));
    mark.setAttribute("cy", y(history[chosen]));
    section.querySelector(".look").href = insideLink(model.name, Float32Array.from(history));
    svg.setAttribute("aria-valuenow", chosen + 1);
    svg.setAttribute("aria-valuetext", `step ${chosen + 1}: ${history[chosen].toPrecision(3)}`);
    section.querySelector(".said").textContent = `next: ${yhat[0].toPrecision(3)}, ${horizon} ahead: ${yhat[horizon - 1].toPrecision(3)} [${ends.map((end) => end[horizon - 1].toPrecision(3)).join(", ")}]`;
  });
  const pull = (step, value) => { // its neighbours come along, less and less
    const change = value - history[step];
    history = history.map((old, k) => old + change * Math.exp(-(((k - step) / 2.5) ** 2)));
    answer();
  };
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const step = Math.round(((event.clientX - box.left) * width / box.width - 10) / (width - 20) * (context + horizon - 1));
    return [step, middle + (height / 2 - (event.clientY - box.top) * height / box.height) / (height / 2 - 10) * span];
  };
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    chosen = Math.min(context - 1, Math.max(0, at(event)[0]));
    pull(chosen, at(event)[1]);
  });
  svg.addEventListener("pointermove", (event) => { if (event.buttons) pull(chosen, at(event)[1]); });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], lift = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step) chosen = Math.min(context - 1, Math.max(0, chosen + step));
    if (step || lift) event.preventDefault();
    if (lift) pull(chosen, history[chosen] + lift * span / 20);
    else if (step) answer();
  });
  section.querySelector(".clear").addEventListener("click", () => { history = [...samples[shown]]; answer(); });
  section.querySelector(".examples").append(...samples.map((sample, k) => button(`Series ${k + 1}`, () => { shown = k; history = [...sample]; answer(); })));
  return answer();
};

const SECTIONS = { classification: classifier, forecasting: forecaster, detection: (...parts) => pictures(...parts), segmentation: (...parts) => pictures(...parts), captioning: (...parts) => pictures(...parts) };

const start = async () => {
  await startRuntime();
  for (const model of LIVE) {
    const session = await ort.InferenceSession.create(bytes(model.onnx), { executionProviders: ["wasm"] });
    sessions[model.name] = { session, step: model.step && await ort.InferenceSession.create(bytes(model.step), { executionProviders: ["wasm"] }) };
    const section = [...document.querySelectorAll("section.live")].find(({ dataset }) => dataset.name === model.name);
    const golden = await replay(model, section);
    await SECTIONS[section.dataset.task](model, section, golden);
  }
  document.querySelector("#state").textContent = "Running in this page.";
};
const live = { run, resize, shrink: (...given) => shrink(...given), ready: null };
addEventListener("load", () => {
  live.ready = start().catch((error) => {
    document.querySelector("#state").textContent = `This browser cannot run it: ${error.message}`;
    throw error;
  });
});
