// The page: brings the picture, the settings, the server and the results together.

import * as api from "./api.js";
import { $, announce, capital, clamp, hush, spoken, toast } from "./dom.js";
import { Editor, TOOLS } from "./editor.js";
import { Panel } from "./panel.js";
import { Results } from "./results.js";
import { forgetJob, keep, keepJob, recall } from "./session.js";

const editor = new Editor($("canvas"));
const panel = new Panel();
const results = new Results();
const doc = { picture: null, maskBlob: null };
let running = null; // {jobs, stopped}
const ready = api.options().then((offers) => panel.fill(offers)).catch((error) => toast(error.message, { bad: true }));

// opening

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, { bad: true });
    return null;
  }
}

async function openFile(file, name = file.name || "pasted.png") {
  if (running) return toast("A run is going on; stop it or wait for it, then open another picture.");
  $("picture-name").textContent = `Opening ${name} …`;
  const opened = await guarded(async () => {
    const picture = await api.upload(file, name);
    await ready;
    if (picture.settings?.method) return restore(picture);
    await openPicture(picture, file);
    return picture;
  });
  if (!opened) $("picture-name").textContent = doc.picture?.name ?? "";
  return opened;
}

/** Shows a picture that the server has; `file` saves getting it again. */
async function openPicture(picture, file = null) {
  let bitmap = file && (await createImageBitmap(file).catch(() => null));
  if (!bitmap || bitmap.width !== picture.width || bitmap.height !== picture.height) bitmap = await api.bitmap(picture.id, true);
  closeResult();
  doc.picture = picture;
  keep({ picture: picture.id, mask: null, frame: null });
  $("welcome").hidden = true;
  $("picture-name").textContent = `${picture.name}, ${picture.width} × ${picture.height}`;
  editor.open(bitmap);
  setSize(Math.max(8, Math.round(Math.min(bitmap.width, bitmap.height) / 16)));
  hush();
}

/** A PNG of Paintback came back: its settings, and its picture and mask where the server still has them. */
async function restore(picture) {
  const { settings } = picture, { web } = settings;
  const missing = panel.restore(settings);
  const original = web?.photo ? await api.about(web.photo).catch(() => null) : null;
  const but = missing.length ? `, but not ${missing.join(" and ")}, which this server does not have` : "";
  if (!original) {
    await openPicture(picture);
    toast(`The settings are back${but}. Its original picture is not on this server; this is the result itself.`);
    return picture;
  }
  await openPicture(original);
  const mask = web.mask && web.mask !== "alpha" ? await api.mask(web.mask, settings.mask_is).catch(() => null) : null;
  if (mask) editor.mask.load(mask.bitmap);
  const [left, top, right, bottom] = settings.outpaint ?? [0, 0, 0, 0];
  editor.setFrame({ left, top, right, bottom });
  toast(`The settings${mask ? ", the picture and the mask" : " and the picture"} of ${picture.name} are back${but}.`,
    { action: { label: "Use the result instead", run: () => guarded(() => openPicture(picture)) } });
  return original;
}

function pick(input, run) {
  input.value = "";
  input.onchange = () => { if (input.files[0]) run(input.files[0]); };
  input.click();
}

const pickPicture = () => pick($("file"), (file) => openFile(file));
$("open").addEventListener("click", pickPicture);
$("open-too").addEventListener("click", pickPicture);
$("example").addEventListener("click", () => guarded(async () => {
  const get = async (name) => (await fetch(`/examples/${name}`)).blob();
  if (!(await openFile(await get("object.jpg"), "spoon.jpg"))) return;
  editor.mask.load(await createImageBitmap(await get("object-mask.png")));
  toast("A spoon to remove. Press Run, or paint over more.");
}));

for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    $("stage").classList.add("dropping");
  });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("dropping"); });
addEventListener("drop", (event) => {
  $("stage").classList.remove("dropping");
  event.preventDefault();
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) openFile(file, file.name === "image.png" ? "pasted.png" : file.name);
});

// tools

function setTool(tool) {
  if (results.selected) closeResult();
  editor.cancel();
  editor.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  editor.draw();
}

const LARGEST = 512;
function setSize(size) {
  editor.size = clamp(Math.round(size), 1, LARGEST);
  $("size").value = Math.log(editor.size) / Math.log(LARGEST) * 100;
  $("size").setAttribute("aria-valuetext", `${editor.size} pixels`);
  $("size-out").textContent = editor.size;
  editor.draw();
}
$("size").addEventListener("input", () => {
  const size = Math.round(LARGEST ** ($("size").valueAsNumber / 100));
  editor.size = size;
  $("size").setAttribute("aria-valuetext", `${size} pixels`);
  $("size-out").textContent = size;
});

const editing = () => editor.picture && !editor.locked;
const ACTIONS = {
  undo: () => editor.mask.undo(),
  redo: () => editor.mask.redo(),
  invert: () => editor.mask.invert(),
  grow: () => editor.mask.grow(4),
  clear: () => editor.mask.clear(),
  load: () => pick($("mask-file"), (file) => guarded(async () => { // read by the rule of the command line
    const { bitmap, remark } = await api.mask((await api.upload(file, file.name)).id, $("mask-is").value);
    if (bitmap.width !== editor.picture.width || bitmap.height !== editor.picture.height) {
      throw new Error(`The mask is ${bitmap.width} × ${bitmap.height} and the picture ${editor.picture.width} × ${editor.picture.height}; give one of the same size.`);
    }
    editor.mask.load(bitmap);
    if (remark) toast(capital(remark), { action: { label: "Change", run: () => { $("advanced").open = true; $("mask-is").focus(); } } });
  })),
  save: async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await editor.mask.toBlob());
    link.download = `${stem()}-mask.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
};
/** A file's name without its suffix, and without what earlier results added to it. */
function short(name) {
  const added = new RegExp(`(-(trained|${panel.offers.methods.map((method) => method.name).join("|")})-[0-9]+)+$`);
  return name.replace(/\.[^.]*$/, "").replace(added, "").slice(0, 60) || "picture";
}
const stem = () => short(doc.picture.name);

function act(name) {
  if (name === "fit") return editor.fit();
  if (!editor.picture) return toast("Open a picture first.");
  if (!editing()) return;
  if (results.selected) closeResult();
  ACTIONS[name]();
}

$("tools").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.tool) setTool(button.dataset.tool);
  else if (button?.dataset.do) act(button.dataset.do);
});

// one stop for Tab, arrows within
const toolControls = () => [...$("tools").querySelectorAll("button, input")].filter((one) => !one.disabled);
for (const one of $("tools").querySelectorAll("button, input")) one.tabIndex = one.dataset.tool === "brush" ? 0 : -1;
$("tools").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by || event.target.type === "range") return;
  const all = toolControls(), next = all[(all.indexOf(event.target) + by + all.length) % all.length];
  next.focus();
  event.preventDefault();
});
$("size").addEventListener("keydown", (event) => { // up and down change it, left and right leave it
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const all = toolControls();
  all[(all.indexOf(event.target) + by + all.length) % all.length].focus();
  event.preventDefault();
  event.stopPropagation();
});
$("tools").addEventListener("focusin", (event) => {
  for (const one of $("tools").querySelectorAll("button, input")) one.tabIndex = one === event.target ? 0 : -1;
});

editor.changed = () => {
  const { mask } = editor;
  for (const [name, list] of [["undo", mask.done], ["redo", mask.undone]]) document.querySelector(`[data-do=${name}]`).disabled = !list.length;
  panel.setFrame(editor.frame);
  keep({ frame: editor.frame });
  clearTimeout(keepMask.timer);
  keepMask.timer = setTimeout(keepMask, 700);
};

/** Sends the mask once nothing has been drawn for a moment, so that a reload finds it. */
async function keepMask() {
  const { mask } = editor;
  if (!mask || editor.path) return;
  const id = mask.bounds() ? (await api.upload(await mask.toBlob(), `${stem()}-mask.png`).catch(() => null))?.id ?? null : null;
  if (editor.mask === mask) keep({ mask: id });
}
$("panel").addEventListener("input", () => keep({ form: panel.state() }));
panel.framed = (frame) => { if (editor.picture) editor.setFrame(frame); };

// running

async function run() {
  if (running) return;
  if (!editor.picture) return toast("Open a picture first: drop one here, paste one, or choose Open picture.");
  if (!$("panel").reportValidity()) return;
  const bounds = editor.mask.bounds(), frame = { ...editor.frame };
  const framed = Object.values(frame).some(Boolean);
  if (!bounds && !framed) return toast("Paint over what shall be replaced, or extend the picture, then press Run.");
  const asked = panel.jobs();
  if (!asked.length) return toast("Tick the methods to compare first.");
  const mine = { jobs: [], stopped: false };
  closeResult();
  hush();
  await follow(mine, async () => {
    progress("Sending …", null);
    const mask = bounds ? (await api.upload(await editor.mask.toBlob(), `${stem()}-mask.png`)).id : null;
    const place = placeOf(doc.picture, editor.picture, frame, framed ? null : bounds);
    keep({ mask, form: panel.state() });
    for (const one of asked) {
      const job = await api.addJob({ ...one, photo: doc.picture.id, mask });
      mine.jobs.push(job);
      results.expect(place, job);
      keepJob({ id: job.id, bounds: framed ? null : bounds });
    }
    panel.used(mine.jobs.flatMap(({ request, outputs }) => (outputs.length ? outputs.map(({ seed }) => seed) : [request.seed, request.seed + request.samples - 1])));
    if (asked.length > 1) results.openGrid(true);
  });
}

/** What the results of a job have in common; `bounds` is the hole's, null for the whole picture. */
function placeOf(picture, base, frame, bounds) {
  return { picture, base, frame, around: (bitmap) => crop(bounds ?? [0, 0, bitmap.width, bitmap.height], bitmap) };
}

let leaving = false;
addEventListener("pagehide", () => { leaving = true; });
addEventListener("pageshow", () => { leaving = false; });

/** Follows jobs to their ends, once `begin` has asked for them. */
async function follow(mine, begin = async () => {}) {
  running = mine;
  busy(true);
  $("stage").scrollIntoView({ block: "nearest" });
  const made = [];
  let asking = true;
  try {
    await begin();
    asking = false;
    for (const [number, job] of mine.jobs.entries()) made.push(...(await watch(job, number, mine)));
  } catch (error) {
    if (leaving) return; // what was under way is broken off by the reload, and the jobs go on
    toast(error.message, { bad: true });
    for (const job of mine.jobs) {
      if (asking) api.stop(job.id).catch(() => {});
      results.drop(job);
    }
  }
  running = null;
  editor.endPreview();
  busy(false);
  if (made.length) {
    announce(`Done: ${made.length} ${made.length === 1 ? "result" : "results"}.`);
    if (mine.jobs.length === 1) show(made[0]);
  }
}

/** After a reload, or another day: the picture, its mask, the settings and the jobs, as far as the server has them. */
async function comeBack() {
  const state = { ...recall() };
  if (!state.picture) return;
  await ready;
  const picture = await api.about(state.picture).catch(() => null);
  if (!picture || doc.picture || running) return; // something else was opened meanwhile
  if (state.form) panel.setState(state.form);
  await openPicture(picture);
  if (state.frame) editor.setFrame(state.frame);
  const mask = state.mask && (await api.bitmap(state.mask, true).catch(() => null));
  if (mask) editor.mask.load(mask);
  const bases = new Map([[picture.id, { picture, base: editor.picture }]]), alive = [];
  for (const { id, bounds } of state.jobs ?? []) {
    const job = await api.job(id).catch(() => null), photo = job?.request.photo;
    if (job && !bases.has(photo)) {
      const other = await api.about(photo).catch(() => null);
      bases.set(photo, other && { picture: other, base: await api.bitmap(photo, true) });
    }
    const known = job && bases.get(photo);
    if (!known) {
      forgetJob(id);
      continue;
    }
    const [left, top, right, bottom] = job.request.outpaint;
    keepJob({ id, bounds });
    results.expect(placeOf(known.picture, known.base, { left, top, right, bottom }, bounds), job);
    for (const output of job.outputs) {
      const tile = results.of(job).find((one) => one.number === output.number);
      tile.asked = true;
      results.add(tile, output, await api.bitmap(output.picture));
    }
    if (job.state === "waiting" || job.state === "running") alive.push(job);
    else results.drop(job);
  }
  if (alive.length && !running) await follow({ jobs: alive, stopped: false });
}

/** Follows one job to its end; gives the tiles that came. */
async function watch(job, number, mine) {
  const came = [];
  let work = Promise.resolve();
  const many = mine.jobs.length > 1 ? `${job.request.method}, ${number + 1} of ${mine.jobs.length}: ` : "";
  const end = await api.follow(job.id, {
    progress: ({ sample, samples, step, steps, fraction, left }) => {
      const parts = [samples > 1 ? `sample ${sample} of ${samples}` : "", steps ? `step ${step} of ${steps}` : "", left === null ? "" : `${spoken(left)} left`];
      progress(many + (parts.filter(Boolean).join(", ") || "loading the model …"), (number + fraction) / mine.jobs.length);
      for (const tile of results.of(job)) if (!tile.output && tile.number === sample) results.caption(tile, steps ? `step ${step} of ${steps}` : "loading the model");
    },
    preview: async ({ box, image }) => {
      const picture = new Image();
      picture.src = image;
      await picture.decode().catch(() => {});
      if (running !== mine || !picture.width) return;
      editor.addPreview(picture, box);
      const next = results.of(job).find(({ output }) => !output);
      if (next) results.preview(next, editor.preview);
    },
    job: (view) => {
      if (view.state === "waiting") progress(`${many}${view.ahead} ahead in the queue`, null);
      for (const output of view.outputs) {
        const tile = results.of(job).find((one) => one.number === output.number);
        if (!tile || tile.output || tile.asked) continue;
        tile.asked = true;
        work = work.then(async () => {
          results.add(tile, output, await api.bitmap(output.picture));
          came.push(tile);
        });
      }
    },
  });
  await work;
  for (const tile of came) tile.job = end;
  results.drop(end);
  if (end.state === "failed") toast(end.error, { bad: true });
  return came;
}

/** The hole with some of its surroundings, inside the picture. */
function crop([left, top, right, bottom], bitmap) {
  const pad = Math.max(12, 0.35 * Math.max(right - left, bottom - top));
  return [Math.max(0, left - pad), Math.max(0, top - pad), Math.min(bitmap.width, right + pad), Math.min(bitmap.height, bottom + pad)];
}

let told = 0;
function progress(text, fraction) {
  $("progress-text").textContent = text;
  if (fraction === null) $("progress").removeAttribute("value");
  else $("progress").value = fraction;
  if (performance.now() - told > 4000) {
    told = performance.now();
    announce(text);
  }
}

function busy(on) {
  const focused = document.activeElement;
  editor.locked = on;
  $("run").hidden = on;
  $("stop").hidden = $("progress-group").hidden = !on;
  $("stop").disabled = false;
  if (on && focused === $("run")) $("stop").focus();
  if (!on && (focused === $("stop") || focused === document.body)) $("run").focus({ preventScroll: true });
  editor.draw();
}

$("panel").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("stop").addEventListener("click", () => {
  if (!running) return;
  $("stop").disabled = true;
  progress("Stopping …", null);
  for (const job of [...running.jobs].reverse()) api.stop(job.id).catch((error) => toast(error.message, { bad: true }));
});

// results

results.choose = (tile) => show(tile);

function show(tile) {
  if (running) return toast("Results can be looked at once the run has ended.");
  results.select(tile);
  results.openGrid(false);
  const start = Math.min(0.5, tile.run.around(tile.bitmap)[0] / tile.bitmap.width); // the whole of what is new is seen
  $("bar").hidden = false;
  $("spread").hidden = !tile.job.spread;
  editor.below = $("bar").offsetHeight + 8;
  editor.show({ bitmap: tile.bitmap, base: tile.run.base, frame: tile.run.frame, split: start, spread: null, original: false });
  split(start);
  setSpread(false);
  const link = $("download");
  link.href = api.pictureUrl(tile.output.picture);
  link.download = `${short(tile.run.picture.name)}-${tile.job.request.method}-${tile.output.seed}.png`;
}

function closeResult() {
  results.select(null);
  editor.show(null);
  $("bar").hidden = $("legend").hidden = true;
}

async function setSpread(on) {
  const tile = results.selected;
  $("spread").setAttribute("aria-pressed", String(on));
  $("legend").hidden = !on;
  if (!tile || !editor.shown) return;
  if (on) {
    tile.job.spreadBitmap ??= await api.bitmap(tile.job.spread);
    $("legend-most").textContent = `± ${(tile.job.spread_largest * 255).toFixed(0)} of 255`;
  }
  if (results.selected === tile) {
    editor.shown.spread = on ? tile.job.spreadBitmap : null;
    editor.draw();
  }
}

/** Copies the result that is looked at, as a picture. */
async function copy() {
  const tile = results.selected;
  if (!tile) return;
  if (!navigator.clipboard?.write) throw new Error("This browser copies pictures from https and this machine's own addresses only; download it.");
  const blob = fetch(api.pictureUrl(tile.output.picture)).then((response) => response.blob());
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
  toast("The result is on the clipboard.");
}

async function continueFrom() {
  const tile = results.selected;
  if (!tile) return;
  const picture = await api.about(tile.output.picture);
  await openPicture(picture);
  $("canvas").focus();
  announce("The result is the picture now.");
}

function split(value) {
  $("slider").value = Math.round(value * 100);
}
editor.split = split;
$("slider").addEventListener("input", () => { editor.shown.split = $("slider").valueAsNumber / 100; editor.draw(); });
$("spread").addEventListener("click", () => guarded(() => setSpread($("spread").getAttribute("aria-pressed") !== "true")));
$("continue").addEventListener("click", () => guarded(continueFrom));
$("copy").addEventListener("click", () => guarded(copy));
$("zoom").addEventListener("click", () => (editor.view.fitted ? editor.zoom(1 / editor.view.scale) : editor.fit()));
editor.viewed = (scale) => {
  const text = `${scale < 0.0995 ? (scale * 100).toFixed(1) : Math.round(scale * 100)} %`;
  if ($("zoom").textContent !== text) $("zoom").textContent = text;
};
$("back").addEventListener("click", () => { closeResult(); $("canvas").focus(); });
$("toast-close").addEventListener("click", hush);
$("keys-open").addEventListener("click", () => $("keys").showModal());

// keys

function original(on) {
  if (!editor.shown) return;
  editor.shown.original = on;
  editor.draw();
}

/** Holding Tab on a result shows the original; a short press moves the focus as ever. */
let tab = null;
function tabDown(event) {
  const on = [$("canvas"), document.body].includes(document.activeElement) || document.activeElement?.closest?.("#strip");
  if (!editor.shown || !on || event.altKey || event.ctrlKey || event.metaKey) return false;
  tab ??= { at: performance.now(), back: event.shiftKey, from: document.activeElement };
  original(true);
  return true;
}

function tabUp() {
  if (!tab) return;
  const { at, back, from } = tab;
  tab = null;
  original(false);
  if (performance.now() - at > 250) return;
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((one) => one.tabIndex >= 0 && !one.disabled && one.getClientRects().length);
  const next = all[all.indexOf(from) + (back ? -1 : 1)];
  (next ?? all[0]).focus();
}

const KEYS = {
  b: () => setTool("brush"), e: () => setTool("eraser"), r: () => setTool("box"), l: () => setTool("lasso"), f: () => setTool("frame"), h: () => setTool("hand"),
  "[": () => setSize(Math.min(editor.size - 1, editor.size / 1.15)), "]": () => setSize(Math.max(editor.size + 1, editor.size * 1.15)),
  i: () => act("invert"), g: () => act("grow"), Delete: () => act("clear"), Backspace: () => act("clear"),
  "+": () => editor.zoom(1.25), "=": () => editor.zoom(1.25), "-": () => editor.zoom(0.8), 0: () => editor.fit(), 1: () => editor.zoom(1 / editor.view.scale),
  u: () => { if (results.selected?.job.spread) guarded(() => setSpread($("legend").hidden)); },
  c: () => guarded(continueFrom),
  Escape: () => { if (!$("grid").hidden) results.openGrid(false); else if (results.selected) closeResult(); else hush(); },
  "?": () => $("keys").showModal(),
};

addEventListener("keydown", (event) => {
  if ($("keys").open) return;
  if (event.key === "Tab" && tabDown(event)) return event.preventDefault();
  const target = document.activeElement;
  const typing = target.matches("textarea, select, input:not([type=range], [type=checkbox])");
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "Enter") { event.preventDefault(); return run(); }
  if (typing || event.altKey) return;
  if (command) {
    const key = event.key.toLowerCase();
    if (key === "c" && results.selected && !String(getSelection())) { event.preventDefault(); guarded(copy); }
    if (key === "z" || key === "y") { event.preventDefault(); act(key === "y" || event.shiftKey ? "redo" : "undo"); }
    return;
  }
  if (target === editor.canvas && editor.key(event)) return event.preventDefault();
  if (event.key === " " && (target === editor.canvas || target === document.body)) {
    editor.panning = true;
    editor.canvas.style.cursor = "grab";
    editor.draw();
    return event.preventDefault();
  }
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action && !(event.key === "Escape" && editor.path)) {
    action();
    event.preventDefault();
  }
});
addEventListener("keyup", (event) => {
  if (event.key === "Tab") tabUp();
  if (event.key === " ") {
    editor.panning = false;
    editor.draw();
  }
});
addEventListener("blur", () => { editor.panning = false; tab = null; original(false); });

setTool(TOOLS[0]);
setSize(24);
guarded(comeBack);
