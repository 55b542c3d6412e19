// The page: brings the picture, the settings, the server and the results together.

import * as api from "./api.js";
import { Batch } from "./batch.js";
import { $, announce, ask, capital, clamp, hush, pick, save, spoken, toast } from "./dom.js";
import { Drawer } from "./drawer.js";
import { Editor, TOOLS } from "./editor.js";
import { fill } from "./fill.js";
import { History } from "./history.js";
import { Mask } from "./mask.js";
import { Panel, entryId } from "./panel.js";
import { Results } from "./results.js";
import { forgetJob, keep, keepJob, recall, recalled } from "./session.js";

const editor = new Editor($("canvas"));
const panel = new Panel();
const results = new Results();
const history = new History();
const doc = { picture: null, sent: null, mask: { id: null, version: -1, of: null } }; // `sent` resolves to the picture once the server has it
const LONG = 60; // seconds from which on a run is asked about
let running = null; // {jobs, stopped}
let tab = "paint";
panel.chosen = (model) => { api.load(model).catch(() => {}); estimate(); }; // loaded before it is asked for
const ready = api.options().then((offers) => { panel.fill(offers); batch.names = new RegExp(`^${offers.mask_names}$`, "i"); }).catch((error) => toast(error.message, { bad: true }));
const batch = new Batch({ settings: () => panel.jobs()[0], guarded, busy: (on, text, share) => batchBusy(on, text, share), changed: () => tell() });
const drawer = new Drawer({ open: openJob, guarded, removed: (id) => { results.remove(results.tiles.filter(({ job }) => job.id === id)); forgetJob(id); } });

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
  const before = { ...doc, bitmap: editor.picture, mask: editor.mask, frame: { ...editor.frame } };
  $("picture-name").textContent = `Opening ${name} …`;
  const sent = api.upload(file, name);
  sent.catch(() => {}); // a refusal may come before the browser has looked at the file; it is told below
  const bitmap = await createImageBitmap(file).catch(() => null); // shown at once where the browser can; the server looks at it meanwhile
  const opened = await guarded(async () => {
    if (bitmap) place({ id: null, name, width: bitmap.width, height: bitmap.height }, bitmap, sent);
    const shown = doc.sent;
    let picture;
    try {
      picture = await sent;
    } catch (error) {
      if (doc.sent !== shown) throw error;
      if (bitmap && before.picture) place(before.picture, before.bitmap, before.sent, before.mask, before.frame);
      else if (bitmap) leave();
      throw error;
    }
    await ready;
    if (doc.sent !== shown) return picture; // another one was opened meanwhile
    if (picture.settings?.method) return restore(picture);
    if (bitmap && bitmap.width === picture.width && bitmap.height === picture.height) {
      doc.picture = picture;
      keep({ picture: picture.id });
      keepMask();
    } else await openPicture(picture);
    return picture;
  });
  if (!opened) $("picture-name").textContent = doc.picture ? titled(doc.picture) : "";
  return opened;
}

const titled = ({ name, width, height }) => `${name}, ${width} × ${height}`;

/** Puts a picture on the stage; its mask is empty unless one is given. */
function place(picture, bitmap, sent, mask, frame) {
  closeResult();
  Object.assign(doc, { picture, sent, mask: { id: null, version: -1, of: null } });
  keep({ picture: picture.id, mask: null, frame: null });
  $("welcome").hidden = true;
  $("picture-name").textContent = titled(picture);
  $("stage").style.setProperty("--aspect", `${picture.width} / ${picture.height}`);
  if (!mask) history.forget();
  editor.open(bitmap, mask, frame);
  if (!mask) setSize(Math.max(8, Math.round(Math.min(bitmap.width, bitmap.height) / 16)));
  hush();
  setTab("paint");
}

/** Takes away a picture that the server does not want. */
function leave() {
  Object.assign(doc, { picture: null, sent: null });
  editor.picture = editor.mask = null;
  history.forget();
  $("welcome").hidden = false;
  editor.draw();
}

/** Shows a picture that the server has. */
async function openPicture(picture) {
  place(picture, await api.bitmap(picture.id, true), Promise.resolve(picture));
}

/** A PNG of Paintback came back: its settings, and its picture and mask where the server still has them. */
async function restore(picture) {
  const { settings } = picture, { web } = settings;
  const missing = panel.restore({ ...settings, reference_images: web?.reference_images ?? null }); // by their ids here
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

const pickPicture = () => pick($("file"), ([file]) => openFile(file));
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
    $(tab === "batch" ? "batch" : "stage").classList.add("dropping");
  });
}
const undrop = () => { for (const id of ["stage", "batch"]) $(id).classList.remove("dropping"); };
addEventListener("dragleave", (event) => { if (!event.relatedTarget) undrop(); });
addEventListener("drop", (event) => {
  undrop();
  event.preventDefault();
  if (tab === "batch") batch.dropped(event.dataTransfer);
  else if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
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
  $("reach-label").hidden = tool !== "wand";
  $("size-label").hidden = tool === "wand";
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
  undo: () => guarded(() => history.back()),
  redo: () => guarded(() => history.forth()),
  invert: () => editor.mask.invert(),
  grow: () => guarded(() => editor.mask.grow(4)),
  clear: () => editor.mask.clear(),
  load: () => pick($("mask-file"), ([file]) => guarded(async () => { // read by the rule of the command line
    const { bitmap, remark } = await api.mask((await api.upload(file, file.name)).id, $(entryId("mask_is")).value);
    if (bitmap.width !== editor.picture.width || bitmap.height !== editor.picture.height) {
      throw new Error(`The mask is ${bitmap.width} × ${bitmap.height} and the picture ${editor.picture.width} × ${editor.picture.height}; give one of the same size.`);
    }
    editor.mask.load(bitmap);
    if (remark) toast(capital(remark), { action: { label: "Change", run: () => { $("advanced").open = true; $(entryId("mask_is")).focus(); } } });
  })),
  save: async () => save(await editor.mask.toBlob(), `${stem()}-mask.png`),
  dust: () => findWords("dust+scratches", "Scratches and dust"),
  text: () => findWords("text", "Text"),
  refine: () => guarded(async () => {
    if (!editor.mask.bounds()) throw new Error("There is no mask yet; paint roughly over what shall go, then refine its edges.");
    await found({ mask: await maskId() }, (bitmap) => editor.mask.load(bitmap));
    toast("The edges of the mask have moved to those of what it covers.");
  }),
  previous: () => guarded(async () => {
    const { previous } = recalled();
    if (!previous) throw new Error("There was no mask before this one; run once, and the next picture can have it again.");
    editor.mask.load(await api.bitmap(previous, true));
  }),
};

/** Has the server find something in the picture, and gives what it found to `use`. */
async function found(asked, use) {
  const { mask } = editor;
  $("stage").classList.add("finding");
  announce("Looking …");
  try {
    const picture = await doc.sent, bitmap = await createImageBitmap(await api.find(picture.id, asked));
    if (editor.mask === mask && !running) use(bitmap);
  } finally {
    $("stage").classList.remove("finding");
  }
}

const findWords = (words, what, sensitivity = 1) => guarded(async () => {
  await found({ words, sensitivity }, (bitmap) => editor.mask.add(bitmap));
  toast(`${what}: what was found is marked. Take out what belongs to the picture.`,
    { action: { label: "Find more", run: () => findWords(words, what, Math.min(16, sensitivity * 1.6)) } });
});

/** A click of the object tool or the wand, or a box around an object. */
editor.pick = (at, away) => guarded(async () => {
  const box = Array.isArray(at) ? [at[0], at[1], at[2] - at[0], at[3] - at[1]] : null;
  const words = box ? `object=${box}` : `${editor.tool === "wand" ? "same-as" : "object-at"}=${at.x},${at.y}`;
  if (!box && (at.x < 0 || at.y < 0 || at.x >= editor.picture.width || at.y >= editor.picture.height)) return;
  await found({ words, sensitivity: editor.tool === "wand" ? 2 ** $("reach").valueAsNumber : 1 }, (bitmap) => editor.mask.add(bitmap, away ? 0 : 1));
  editor.released();
});

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
  const chain = name === "undo" || name === "redo";
  if (results.selected && !(chain && history[name === "undo" ? "done" : "undone"].at(-1)?.kind !== "mask")) {
    closeResult();
    if (chain) return; // what is undone is seen
  }
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

history.changed = () => {
  for (const [name, list] of [["undo", history.done], ["redo", history.undone]]) document.querySelector(`[data-do=${name}]`).disabled = !list.length;
};
editor.remember = (entry) => history.push(entry);

editor.changed = () => {
  panel.setFrame(editor.frame);
  keep({ frame: editor.frame });
  clearTimeout(keepMask.timer);
  keepMask.timer = setTimeout(keepMask, 500);
};
editor.released = () => { if ($("auto").checked && !running && tab === "paint") run(); };

/** The id of the mask as it is now, which is sent where the server does not have it. */
async function maskId() {
  const { mask } = editor;
  await mask.growing;
  const { version } = mask;
  if (doc.mask.of === mask && doc.mask.version === version) return doc.mask.id;
  const id = mask.bounds() ? (await api.upload(await mask.toBlob(), `${stem()}-mask.png`)).id : null;
  if (editor.mask === mask) doc.mask = { id, version, of: mask };
  return id;
}

/** Sends the mask once nothing has been drawn for a moment, so that a reload finds it, and says how long a run would take. */
async function keepMask() {
  const { mask } = editor;
  if (!mask || editor.path || running) return;
  const id = await maskId().catch(() => null);
  if (editor.mask === mask) {
    keep({ mask: id });
    estimate();
  }
}

let expected = null; // seconds of the run that the form asks for

/** What Run says, from the server's plan for the picture, the mask and the settings as they are. */
function estimate(wait = 250) {
  clearTimeout(estimate.timer);
  expected = null;
  const turn = estimate.turn = (estimate.turn ?? 0) + 1;
  estimate.timer = setTimeout(async () => {
    const { mask, picture } = { mask: doc.mask, picture: doc.picture };
    const framed = picture && Object.values(editor.frame).some(Boolean);
    if (tab === "batch" || running || !picture?.id || !panel.offers || !(framed || (mask.of === editor.mask && mask.id)) || !$("panel").checkValidity()) return tell();
    const seconds = await planned(panel.jobs(), mask.id, 60, () => turn === estimate.turn).catch(() => null); // where it cannot be, Run says why
    if (turn !== estimate.turn) return;
    expected = seconds;
    tell();
  }, wait);
}

/** The seconds of jobs, or null where that is not known, even if a model that is being loaded is waited for. */
async function planned(jobs, mask, tries = 20, wanted = () => true) {
  let sum = 0;
  for (const job of jobs) {
    let plan;
    for (let k = 0; wanted(); k++) {
      plan = await api.plan({ ...job, photo: doc.picture.id, mask });
      if (!plan.loading || k >= tries) break;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
    if (!plan || plan.seconds === null) return null;
    sum += plan.seconds;
  }
  return jobs.length ? sum : null;
}

function tell() {
  const what = tab === "batch" ? (batch.waiting ? `Run ${batch.waiting} ${batch.waiting === 1 ? "picture" : "pictures"}` : "Run") : "Run";
  $("run-text").textContent = tab !== "batch" && expected !== null ? `${what}, about ${spoken(Math.max(0.1, expected), true)}` : what;
}

$("panel").addEventListener("input", () => { keep({ form: panel.state() }); estimate(); });
panel.framed = (frame) => { if (editor.picture) editor.setFrame(frame); };

// running

async function run() {
  if (running) return;
  if (tab === "batch") return $("panel").reportValidity() && batch.run();
  if (!editor.picture) return toast("Open a picture first: drop one here, paste one, or choose Open picture.");
  if (!$("panel").reportValidity()) return;
  const bounds = editor.mask.bounds(), frame = { ...editor.frame };
  const framed = Object.values(frame).some(Boolean);
  if (!bounds && !framed) return toast("Paint over what shall be replaced, or extend the picture, then press Run.");
  let asked = panel.jobs();
  if (!asked.length) return toast("Tick the methods to compare first.");
  const mine = { jobs: [], stopped: false };
  closeResult();
  hush();
  const draft = fill(editor.picture, editor.mask, frame, framed ? null : bounds); // seen at once; nobody but the stage ever has it
  editor.addPreview(draft.image, draft.box);
  $("draft").hidden = false;
  performance.mark("draft");
  await follow(mine, async () => {
    progress("Sending …", null);
    const picture = await doc.sent, mask = await maskId();
    doc.picture = picture;
    const seconds = expected ?? (await planned(asked, mask, 0).catch(() => null)); // a model that is being loaded is not waited for here
    mine.untold = seconds === null;
    if (seconds > LONG) asked = await agreed(asked, seconds, mask);
    if (!asked.length || mine.stopped) return;
    const where = placeOf(picture, editor.picture, frame, framed ? null : bounds);
    keep({ mask, form: panel.state(), ...(mask ? { previous: mask } : {}) });
    for (const one of asked) {
      const job = await api.addJob({ ...one, photo: picture.id, mask });
      mine.jobs.push(job);
      results.expect(where, job);
      keepJob({ id: job.id, bounds: framed ? null : bounds });
    }
    panel.used(mine.jobs.flatMap(({ request, outputs }) => (outputs.length ? outputs.map(({ seed }) => seed) : [request.seed, request.seed + request.samples - 1])));
  });
}

/** What somebody who has seen how long it takes wants: the jobs, faster ones, or none. */
async function agreed(jobs, seconds, mask) {
  const faster = jobs.map((job) => ({ ...job, quality: "fast" }));
  const fast = jobs[0].steps || jobs[0].quality === "fast" ? null : await planned(faster, mask).catch(() => null);
  const answer = await ask(`This takes about ${spoken(seconds, true)} here.`, [
    { label: "Run", value: "run", primary: true },
    ...(fast !== null && fast < 0.7 * seconds ? [{ label: `Fast instead, about ${spoken(fast, true)}`, value: "fast" }] : []),
    { label: "Not now", value: "" },
  ]);
  return answer === "run" ? jobs : answer === "fast" ? faster : [];
}

/** Asks about a run whose length was not known before it began, but is now. */
async function askLate(mine, seconds) {
  Object.assign(mine, { untold: false, asking: true });
  const answer = await ask(`This takes about ${spoken(seconds, true)} more here.`, [{ label: "Go on", value: "run", primary: true }, { label: "Stop", value: "stop" }]);
  mine.asking = false;
  if (answer === "stop" && running === mine && !mine.stopped) $("stop").click();
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
  if (mine.asking) $("ask").close(); // it has ended meanwhile
  editor.endPreview();
  $("draft").hidden = true;
  busy(false);
  estimate();
  if (made.length) {
    announce(`Done: ${made.length} ${made.length === 1 ? "result" : "results"}.`);
    if (mine.jobs.length > 1 || tab === "compare") return;
    show(made[0]);
    history.push({ kind: "result", bytes: 0, back: () => closeResult(), forth: () => show(made[0]) });
  }
}

/** After a reload, or another day: the picture, its mask, the settings and the jobs, as far as the server has them. */
async function comeBack() {
  const state = { ...recall() };
  await ready;
  await batch.comeBack(state.batch);
  const picture = state.picture && (await api.about(state.picture).catch(() => null));
  if (doc.picture || running) return; // something else was opened meanwhile
  if (!picture) {
    setTab(state.tab ?? "paint");
    return batch.resume();
  }
  if (state.form) panel.setState(state.form);
  await openPicture(picture);
  if (state.frame) editor.setFrame(state.frame);
  const mask = state.mask && (await api.bitmap(state.mask, true).catch(() => null));
  if (mask) editor.mask.load(mask);
  history.forget();
  const bases = new Map([[picture.id, { picture, base: editor.picture }]]), alive = [];
  for (const { id, bounds } of state.jobs ?? []) {
    const job = await api.job(id).catch(() => null), known = job && (await baseOf(job.request.photo, bases));
    if (!known) {
      forgetJob(id);
      continue;
    }
    await lay(job, known, bounds);
    if (job.state === "waiting" || job.state === "running") alive.push(job);
    else results.drop(job);
  }
  setTab(state.tab ?? "paint");
  if (alive.length && !running) await follow({ jobs: alive, stopped: false });
  if (!running) await batch.resume();
}

/** A picture that jobs painted in, and its bitmap, got once. */
async function baseOf(photo, bases) {
  if (!bases.has(photo)) {
    const picture = await api.about(photo).catch(() => null);
    bases.set(photo, picture && { picture, base: await api.bitmap(photo, true) });
  }
  return bases.get(photo);
}

/** Puts the results of a job among the others. */
async function lay(job, { picture, base }, bounds) {
  const [left, top, right, bottom] = job.request.outpaint;
  keepJob({ id: job.id, bounds });
  results.expect(placeOf(picture, base, { left, top, right, bottom }, bounds), job);
  for (const output of job.outputs) {
    const tile = results.of(job).find((one) => one.number === output.number);
    tile.asked = true;
    results.add(tile, output, await api.bitmap(output.picture));
  }
}

/** Opens a job of the history: its picture, its mask, and its results. */
async function openJob(job) {
  if (running) throw new Error("A run is going on; stop it or wait for it, then open an earlier one.");
  const { photo, mask, outpaint } = job.request;
  const picture = await api.about(photo);
  await openPicture(picture);
  const [left, top, right, bottom] = outpaint;
  editor.setFrame({ left, top, right, bottom });
  if (mask && mask !== "alpha") editor.mask.load((await api.mask(mask, job.request.mask_is)).bitmap);
  history.forget();
  if (!results.of(job).length) {
    await lay(job, { picture, base: editor.picture }, outpaint.some(Boolean) ? null : editor.mask.bounds());
    results.drop(job);
  }
  const [first] = results.of(job);
  if (first) show(first);
}

/** Follows one job to its end; gives the tiles that came. */
async function watch(job, number, mine) {
  const came = [];
  let work = Promise.resolve();
  const many = mine.jobs.length > 1 ? `${job.request.method}, ${number + 1} of ${mine.jobs.length}: ` : "";
  const end = await api.follow(job.id, {
    progress: ({ sample, samples, step, steps, fraction, left }) => {
      const parts = [samples > 1 ? `sample ${sample} of ${samples}` : "", steps ? `step ${step} of ${steps}` : "", left === null ? "" : `${spoken(left)} left`];
      if (mine.untold && step > 1 && left > LONG) askLate(mine, left);
      progress(many + (parts.filter(Boolean).join(", ") || "loading the model …"), (number + fraction) / mine.jobs.length);
      for (const tile of results.of(job)) if (!tile.output && tile.number === sample) results.caption(tile, steps ? `step ${step} of ${steps}` : "loading the model");
    },
    preview: async ({ box, image }) => {
      const picture = new Image();
      picture.src = image;
      await picture.decode().catch(() => {});
      if (running !== mine || !picture.width) return;
      editor.addPreview(picture, box);
      if (!$("draft").hidden) performance.mark("preview");
      $("draft").hidden = true;
      const next = results.of(job).find(({ output }) => !output);
      if (next) results.preview(next, editor.previews);
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

/** A batch runs, or has ended. */
function batchBusy(on, text, share) {
  if (on !== Boolean(running)) {
    running = on ? { batch: true, jobs: [] } : null;
    busy(on);
  }
  if (on) progress(text, share);
  tell();
}

function busy(on) {
  const focused = document.activeElement;
  editor.locked = on;
  document.body.classList.toggle("running", on);
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
  running.stopped = true;
  $("stop").disabled = true;
  progress("Stopping …", null);
  if (running.batch) return batch.stop();
  for (const job of [...running.jobs].reverse()) api.stop(job.id).catch((error) => toast(error.message, { bad: true }));
});

// results

results.choose = (tile) => show(tile);

function show(tile) {
  if (running) return toast("Results can be looked at once the run has ended.");
  setTab("paint");
  results.select(tile);
  const start = Math.min(0.5, tile.run.around(tile.bitmap)[0] / tile.bitmap.width); // the whole of what is new is seen
  $("bar").hidden = false;
  $("spread").hidden = !tile.job.spread;
  editor.below = getComputedStyle($("bar")).position === "absolute" ? $("bar").offsetHeight + 8 : 0;
  editor.show({ bitmap: tile.bitmap, base: tile.run.base, frame: tile.run.frame, split: start, spread: null, original: false });
  split(start);
  setSpread(false);
  const link = $("download");
  link.href = api.pictureUrl(tile.output.picture);
  link.download = `${short(tile.run.picture.name)}-${tile.job.request.method}-${tile.output.seed}.png`;
  $("stage").scrollIntoView({ block: "nearest" });
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
  const before = { picture: doc.picture, sent: doc.sent, bitmap: editor.picture, mask: editor.mask, frame: { ...editor.frame } };
  const mask = new Mask(tile.bitmap.width, tile.bitmap.height);
  const forth = () => place(picture, tile.bitmap, Promise.resolve(picture), mask);
  forth();
  history.push({
    kind: "continue", bytes: mask.plane.length, forth,
    back: () => { place(before.picture, before.bitmap, before.sent, before.mask, before.frame); show(tile); },
  });
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
$("history-open").addEventListener("click", () => drawer.show());
$("grid-open").addEventListener("click", () => setTab("compare"));
$("lens").addEventListener("click", () => setLens(!editor.lens));
function setLens(on) {
  editor.lens = on;
  $("lens").setAttribute("aria-pressed", String(on));
}

// tabs

const TABS = { paint: "paint", compare: "comparison", batch: "batch" };
function setTab(name) {
  tab = name;
  for (const [one, id] of Object.entries(TABS)) {
    const button = $(`tab-${one}`);
    $(id).hidden = one !== name;
    button.setAttribute("aria-selected", String(one === name));
    button.tabIndex = one === name ? 0 : -1;
  }
  document.body.dataset.tab = name;
  keep({ tab: name });
  panel.compare(name === "compare");
  estimate(0);
  tell();
}
document.querySelector(".tabs").addEventListener("click", (event) => { if (event.target.id) setTab(event.target.id.slice(4)); });
document.querySelector(".tabs").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = Object.keys(TABS);
  if (!by) return;
  setTab(all[(all.indexOf(tab) + by + all.length) % all.length]);
  $(`tab-${tab}`).focus();
  event.preventDefault();
});
if (matchMedia("(hover: none)").matches) for (const one of document.querySelectorAll("[title]")) one.removeAttribute("title"); // keys that there are not

// keys

function original(on) {
  if (!editor.shown) return;
  editor.shown.original = on;
  editor.draw();
}

/** Holding Tab on a result shows the original; a short press moves the focus as ever. */
let held = null;
function tabDown(event) {
  const on = [$("canvas"), document.body].includes(document.activeElement) || document.activeElement?.closest?.("#strip");
  if (!editor.shown || !on || event.altKey || event.ctrlKey || event.metaKey) return false;
  held ??= { at: performance.now(), back: event.shiftKey, from: document.activeElement };
  original(true);
  return true;
}

function tabUp() {
  if (!held) return;
  const { at, back, from } = held;
  held = null;
  original(false);
  if (performance.now() - at > 250) return;
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((one) => one.tabIndex >= 0 && !one.disabled && one.getClientRects().length);
  const next = all[all.indexOf(from) + (back ? -1 : 1)];
  (next ?? all[0]).focus();
}

const KEYS = {
  b: () => setTool("brush"), e: () => setTool("eraser"), r: () => setTool("box"), l: () => setTool("lasso"), o: () => setTool("object"), w: () => setTool("wand"), m: () => setLens(!editor.lens), p: () => act("previous"), f: () => setTool("frame"), h: () => setTool("hand"),
  "[": () => setSize(Math.min(editor.size - 1, editor.size / 1.15)), "]": () => setSize(Math.max(editor.size + 1, editor.size * 1.15)),
  i: () => act("invert"), g: () => act("grow"), Delete: () => act("clear"), Backspace: () => act("clear"),
  "+": () => editor.zoom(1.25), "=": () => editor.zoom(1.25), "-": () => editor.zoom(0.8), 0: () => editor.fit(), 1: () => editor.zoom(1 / editor.view.scale),
  u: () => { if (results.selected?.job.spread) guarded(() => setSpread($("legend").hidden)); },
  c: () => guarded(continueFrom),
  Escape: () => { if (tab !== "paint") setTab("paint"); else if (results.selected) closeResult(); else hush(); },
  "?": () => $("keys").showModal(),
};

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
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
  if (tab !== "paint" && event.key !== "Escape" && event.key !== "?") return;
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
addEventListener("blur", () => { editor.panning = false; held = null; original(false); });

setTool(TOOLS[0]);
setSize(24);
guarded(comeBack);
