// Models of pictures: the reader's own picture, or a test image of the file, and what the model answers drawn over it.

// RGBA pixels of a canvas as the model's input, RGB of [rows, columns]: resized as Pillow does.
const shrink = ({ data, width, height }, [rows, columns]) => {
  const planes = [0, 1, 2].map((channel) => {
    const plane = Uint8Array.from({ length: width * height }, (_, k) => data[4 * k + channel]);
    return pass(pass(plane, height, width, columns), columns, height, rows);
  });
  return Uint8Array.from({ length: 3 * rows * columns }, (_, k) => planes[k % 3][Math.floor(k / 3)]);
};

const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
const colourOf = (name) => `rgb(${tone(name).join(" ")})`;

// A canvas with RGB pixels, or RGBA ones.
const toCanvas = (pixels, width, height, channels) => {
  const made = canvasOf(width, height), image = new ImageData(width, height);
  for (let k = 0; k < width * height; k++) {
    for (let c = 0; c < 4; c++) image.data[4 * k + c] = c < channels ? pixels[channels * k + c] : 255;
  }
  made.getContext("2d").putImageData(image, 0, 0);
  return made;
};

// What a task answers about an input: lines of the table, and a function that draws on the picture, whose pixels are
// `across` and `down` times those of the input.
const ANSWERS = {
  detection: async (model, input, shape, section) => {
    const { boxes, labels, scores, count } = await run(model.name, input, [1, ...shape, 3]);
    const least = Number(section.querySelector(".least input").value);
    const finds = Array.from({ length: Number(count[0]) }, (_, k) => ({ box: boxes.slice(4 * k, 4 * k + 4), label: model.document.labels[Number(labels[k])], score: scores[k] })).filter(({ score }) => score >= least);
    const draw = (pen, across, down) => {
      for (const { box: [left, top, right, bottom], label, score } of finds) {
        const frame = [left * across, top * down, (right - left) * across, (bottom - top) * down];
        for (const [width, colour] of [[5, "white"], [2.5, colourOf("--right")]]) {
          Object.assign(pen, { lineWidth: width, strokeStyle: colour });
          pen.strokeRect(...frame);
        }
        const text = `${label} ${score.toFixed(2)}`;
        pen.font = "bold 13px system-ui, sans-serif";
        Object.assign(pen, { fillStyle: colourOf("--page"), textBaseline: "top" });
        pen.fillRect(frame[0], frame[1], pen.measureText(text).width + 6, 17);
        pen.fillStyle = colourOf("--right");
        pen.fillText(text, frame[0] + 3, frame[1] + 2);
      }
    };
    return { draw, lines: finds.map(({ label, score, box }) => [label, score.toFixed(3), Array.from(box, (side) => side.toFixed(0)).join(", ")]) };
  },
  segmentation: async (model, input, shape) => {
    const { masks } = await run(model.name, input, [1, ...shape, 3]);
    const { labels } = model.document, [rows, columns] = shape;
    const tinted = new Uint8Array(4 * masks.length), counts = labels.map(() => 0);
    masks.forEach((label, k) => {
      counts[label] += 1;
      tinted.set([...model.colours[label], label ? 190 : 0], 4 * k);
    });
    const draw = (pen, across, down) => {
      pen.imageSmoothingEnabled = false;
      pen.drawImage(toCanvas(tinted, columns, rows, 4), 0, 0, columns * across, rows * down);
    };
    const present = labels.map((_, label) => label).filter((label) => counts[label]);
    return { draw, lines: present.map((label) => [labels[label], `${(100 * counts[label] / masks.length).toFixed(1)} %`, label ? `rgb(${model.colours[label].join(" ")})` : ""]) };
  },
  // The most probable word after each other, by the file's step: its state is that of the image first.
  captioning: async (model, input, shape) => {
    const found = await run(model.name, input, [1, ...shape, 3]);
    let [hidden, cell, word, chance] = [found.first_hidden, found.first_cell, 0, 1];
    const { words, caption: { longest } } = model.document, lines = [];
    while (lines.length < longest) {
      const state = (values) => new ort.Tensor("float32", values, [1, values.length]);
      const next = await sessions[model.name].step.run({ word: new ort.Tensor("int64", BigInt64Array.of(BigInt(word)), [1]), hidden: state(hidden), cell: state(cell) });
      const logs = next.log_probabilities.data;
      word = logs.indexOf(Math.max(...logs));
      chance *= Math.exp(logs[word]);
      if (words[word] === "<end>") break;
      lines.push([words[word], Math.exp(logs[word]).toFixed(3)]);
      [hidden, cell] = [next.next_hidden.data, next.next_cell.data];
    }
    return { draw: () => {}, lines, text: `“${lines.map(([said]) => said).join(" ")}”, probability ${chance.toFixed(3)}` };
  },
};

const pictures = (model, section, golden) => {
  const shape = model.document.input.size, [rows, columns] = shape, one = 3 * rows * columns;
  const canvas = section.querySelector(".picture"), body = section.querySelector(".finds tbody");
  const examples = Array.from({ length: golden.shape[0] }, (_, k) => golden.data.slice(k * one, (k + 1) * one));
  const test = (k) => ({ input: examples[k], source: toCanvas(examples[k], columns, rows, 3), what: `Test image ${k + 1} of the file` });
  let shown = test(0);
  const answer = latest(async () => {
    const { input, source, what } = shown;
    const found = await ANSWERS[section.dataset.task](model, input, shape, section);
    const scale = 384 / Math.max(source.width, source.height);
    [canvas.width, canvas.height] = [source.width, source.height].map((side) => Math.max(1, Math.round(side * scale)));
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(source, 0, 0, canvas.width, canvas.height);
    found.draw(pen, canvas.width / columns, canvas.height / rows);
    body.replaceChildren(...found.lines.map(([label, ...cells]) => {
      const line = document.createElement("tr"), head = document.createElement("th");
      Object.assign(head, { scope: "row", textContent: label });
      line.append(head, ...cells.map((text) => {
        const cell = document.createElement("td");
        if (text.startsWith("rgb")) cell.append(Object.assign(document.createElement("span"), { className: "swatch", style: `background: ${text}` }));
        else cell.textContent = text;
        return cell;
      }));
      return line;
    }));
    const said = found.text ?? (found.lines.length ? found.lines.map(([label, value]) => `${label} ${value}`).join("; ") : "nothing");
    section.querySelector(".said").textContent = `${what}: ${said}.`;
    canvas.setAttribute("aria-label", `${what}, with the answer: ${said}`);
    section.querySelector(".look").href = insideLink(model.name, input);
  });
  section.querySelector("[type=file]").addEventListener("change", async ({ target }) => {
    if (!target.files.length) return;
    try {
      const bitmap = await createImageBitmap(target.files[0]);
      const source = canvasOf(bitmap.width, bitmap.height), pen = source.getContext("2d");
      pen.fillStyle = `rgb(${(model.document.input.background ?? [0, 0, 0]).join(" ")})`; // below transparent pixels
      pen.fillRect(0, 0, source.width, source.height);
      pen.drawImage(bitmap, 0, 0);
      shown = { input: shrink(pen.getImageData(0, 0, source.width, source.height), shape), source, what: "Your picture" };
      await answer();
    } catch {
      section.querySelector(".said").textContent = "This file is no picture that the browser can read; choose a PNG or JPEG file.";
    }
  });
  section.querySelector(".least input")?.addEventListener("input", ({ target }) => {
    section.querySelector(".least output").textContent = Number(target.value).toFixed(2);
    answer();
  });
  section.querySelector(".examples").append(...examples.map((_, k) => button(`Test image ${k + 1}`, () => { shown = test(k); answer(); })));
  return answer();
};
