// The results: a strip beside the picture, and a grid and a table to compare them in.

import { $, canvasOf, make, save, spoken } from "./dom.js";

const COLUMNS = { picture: "Picture", model: "Model", method: "Method", quality: "Quality", steps: "Steps", seed: "Seed", evaluations: "Evaluations", gradients: "Gradients", seconds: "Seconds", peak_memory_bytes: "Memory" };
const NUMBERS = ["steps", "seed", "evaluations", "gradients", "seconds", "peak_memory_bytes"];

export class Results {
  constructor() {
    this.tiles = []; // {run, job, number, output, bitmap, strip, grid}
    this.selected = null;
    this.choose = () => {};
    $("table").querySelector("thead").append(make("tr", {}, ...Object.entries(COLUMNS).map(([name, text]) => make("th", { scope: "col", textContent: text, className: NUMBERS.includes(name) ? "number" : "" }))));
    $("csv").addEventListener("click", () => save(new Blob([this.csv()], { type: "text/csv" }), "paintback-comparison.csv"));
  }

  /** Places for the samples of a job that has been asked for; `run` is what they have in common. */
  expect(run, job) {
    for (let number = 1; number <= job.request.samples; number++) {
      const tile = { run, job, number, output: null, bitmap: null };
      tile.strip = this.element(tile);
      tile.grid = this.element(tile);
      this.tiles.push(tile);
      $("strip").append(make("li", {}, tile.strip));
      $("grid").append(tile.grid);
      this.caption(tile);
    }
    $("results").hidden = false;
    this.tabulate();
    $("strip").lastChild.scrollIntoView({ block: "nearest", inline: "end" });
  }

  element(tile) {
    const button = make("button", { type: "button", className: "tile pending" }, canvasOf(240, 180), make("b"), make("span"), make("span"));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => { if (tile.bitmap) this.choose(tile); });
    return button;
  }

  of(job) { return this.tiles.filter((tile) => tile.job.id === job.id); }

  caption(tile, waiting = "waiting") {
    const { method, seed } = tile.job.request, { output } = tile;
    const first = `seed ${output?.seed ?? seed + tile.number - 1}`;
    const cost = output ? `${output.evaluations} evaluations, ${spoken(output.seconds)}${output.stopped ? ", stopped" : ""}` : waiting;
    for (const element of [tile.strip, tile.grid]) {
      const [title, seedText, costText] = element.querySelectorAll("b, span");
      title.textContent = method;
      seedText.textContent = first;
      costText.textContent = cost + (output?.vjps ? `, ${output.vjps} gradients` : "");
      if (element === tile.strip && output) costText.textContent = `${output.evaluations} ev, ${spoken(output.seconds)}`;
      element.disabled = !output;
      element.classList.toggle("pending", !output);
      element.title = output ? `${method}, ${first}: ${cost}` : "";
      element.setAttribute("aria-label", `${method}, ${first}, ${cost}`);
    }
  }

  add(tile, output, bitmap) {
    Object.assign(tile, { output, bitmap });
    this.caption(tile);
    for (const element of [tile.strip, tile.grid]) thumbnail(element.querySelector("canvas"), tile.run.around(bitmap), bitmap, [[bitmap, 0, 0]]);
    this.tabulate();
  }

  /** What each result is and what it took, as the table and the file have it. */
  rows() {
    return this.tiles.filter(({ output }) => output).map(({ run, job: { request }, output }) => ({
      picture: run.picture.name, model: request.model, method: request.method, quality: request.quality, steps: request.steps, seed: output.seed,
      evaluations: output.evaluations, gradients: output.vjps, seconds: output.seconds, peak_memory_bytes: output.peak_memory_bytes,
    }));
  }

  tabulate() {
    const rows = this.rows(), shown = { seconds: (value) => value.toFixed(2), peak_memory_bytes: (value) => (value === null ? "" : `${Math.round(value / 2 ** 20)} MB`) };
    $("table").hidden = $("csv").hidden = !rows.length;
    $("compare-empty").hidden = this.tiles.length > 0;
    $("table").querySelector("tbody").replaceChildren(...rows.map((row) => make("tr", {}, ...Object.keys(COLUMNS).map((name) => (
      make("td", { textContent: row[name] === null ? "" : shown[name]?.(row[name]) ?? row[name], className: NUMBERS.includes(name) ? "number" : "" }))))));
  }

  csv() {
    const cell = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    return [Object.keys(COLUMNS), ...this.rows().map((row) => Object.keys(COLUMNS).map((name) => String(row[name] ?? "")))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  /** What is predicted of a sample that is being painted: {image, box} over the hole of the extended picture. */
  preview(tile, previews) {
    const { base, frame, around } = tile.run;
    const whole = { width: base.width + frame.left + frame.right, height: base.height + frame.top + frame.bottom };
    for (const element of [tile.strip, tile.grid]) {
      thumbnail(element.querySelector("canvas"), around(whole), whole, [[base, frame.left, frame.top], ...previews.map(({ image, box }) => [image, ...box])]);
    }
  }

  /** Places that nothing came for. */
  drop(job) { this.remove(this.of(job).filter(({ output }) => !output)); }

  remove(tiles) {
    for (const tile of tiles) {
      tile.strip.parentElement.remove();
      tile.grid.remove();
      this.tiles.splice(this.tiles.indexOf(tile), 1);
    }
    if (!this.tiles.length) $("results").hidden = true;
    this.tabulate();
  }

  select(tile) {
    this.selected = tile;
    for (const one of this.tiles) {
      for (const element of [one.strip, one.grid]) element.setAttribute("aria-pressed", String(one === tile));
    }
    if (tile) tile.strip.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

/** The part around the hole, to fill a small canvas; of a small picture all. `layers` are [image, x, y], or with a size. */
function thumbnail(canvas, [left, top, right, bottom], { width, height }, layers) {
  let scale = Math.min(canvas.width / (right - left), canvas.height / (bottom - top));
  let x = 0, y = 0;
  if (canvas.width / scale > width || canvas.height / scale > height) {
    scale = Math.min(canvas.width / width, canvas.height / height);
    [x, y] = [(canvas.width / scale - width) / 2, (canvas.height / scale - height) / 2];
  } else {
    const [across, down] = [canvas.width / scale, canvas.height / scale];
    x = -Math.min(Math.max(0, (left + right - across) / 2), width - across);
    y = -Math.min(Math.max(0, (top + bottom - down) / 2), height - down);
  }
  const c = canvas.getContext("2d");
  c.setTransform(1, 0, 0, 1, 0, 0);
  c.clearRect(0, 0, canvas.width, canvas.height);
  c.setTransform(scale, 0, 0, scale, x * scale, y * scale);
  c.imageSmoothingEnabled = scale < 3;
  c.imageSmoothingQuality = "high";
  for (const [image, ...place] of layers) c.drawImage(image, ...place);
}
