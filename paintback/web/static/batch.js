// Many pictures with the same settings: a folder is dropped, each picture finds its mask, and the results are one file.

import * as api from "./api.js";
import { $, make, pick, spoken, toast } from "./dom.js";
import { keep } from "./session.js";

const AHEAD = 6; // jobs of a batch that wait at the server, so that others get their turn
const LOOK = 700; // milliseconds between looks at them
const ENDED = ["done", "failed", "stopped"];
const PICTURE = /\.(png|jpe?g|webp|tiff?|bmp|gif)$/i;
const stemOf = (path) => path.split("/").at(-1).replace(/\.[^.]*$/, "");
const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));

export class Batch {
  constructor({ settings, guarded, busy, changed }) {
    Object.assign(this, { settings, guarded, busy, changed, items: [], masks: new Map(), one: null, stopping: false, away: "", names: /(?!)/ });
    $("batch-folder").addEventListener("click", () => pick($("folder-file"), (files) => this.take(files)));
    $("batch-files").addEventListener("click", () => pick($("batch-file"), (files) => this.take(files)));
    $("batch-mask").addEventListener("click", () => pick($("mask-file"), ([file]) => { this.one = file; this.show(); }));
    $("batch-masks").addEventListener("change", () => this.show());
    $("batch-clear").addEventListener("click", () => this.clear());
  }

  get mode() { return $("batch-masks").value; }
  get ready() { return this.items.filter((item) => !item.job && item.file && this.masked(item)); }
  get waiting() { return this.ready.length; }

  masked(item) {
    if (this.mode === "names") return this.masks.has(item.stem);
    return this.mode !== "one" || this.one !== null;
  }

  async dropped(transfer) {
    const files = [];
    const walk = async (entry, folder) => {
      if (entry.isFile) files.push(Object.assign(await new Promise((resolve, reject) => entry.file(resolve, reject)), { path: folder + entry.name }));
      else {
        const reader = entry.createReader();
        for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) for (const one of some) await walk(one, `${folder}${entry.name}/`);
      }
    };
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()), plain = [...transfer.files];
    if (entries.some(Boolean)) for (const entry of entries.filter(Boolean)) await walk(entry, "");
    else files.push(...plain);
    this.take(files);
  }

  /** Files: those whose names are a mask's, or that lie in a folder of masks, are masks. */
  take(files) {
    const added = files.map((file) => ({ file, path: file.path || file.webkitRelativePath || file.name })).filter(({ path }) => PICTURE.test(path));
    added.sort((a, b) => a.path.localeCompare(b.path));
    for (const { file, path } of added) {
      const stem = stemOf(path), named = this.names.exec(stem)?.groups.stem;
      if (named) this.masks.set(named, file);
      else if (/(^|\/)masks?\//i.test(path)) this.masks.set(stem, file);
      else if (!this.items.some((item) => item.path === path)) this.items.push({ file, path, stem, state: "", job: null, outputs: [] });
    }
    if (!added.length) toast("There is no picture among these files.");
    this.show();
  }

  clear() {
    this.items = [];
    this.masks.clear();
    this.one = null;
    this.keep();
    this.show();
  }

  keep() { keep({ batch: this.items.filter(({ job }) => job).map(({ path, picture, job }) => ({ path, picture, job: job.id })) }); }

  /** After a reload: the jobs that had been asked for; files that had not been sent are the browser's, and gone. */
  async comeBack(saved) {
    for (const { path, picture, job: id } of saved ?? []) {
      const job = await api.job(id).catch(() => null);
      if (job) this.items.push({ file: null, path, stem: stemOf(path), picture, job, state: job.state, outputs: job.outputs, error: job.error });
    }
    this.show();
  }

  /** Goes on watching what had been asked for. */
  async resume() {
    if (this.alive().length) await this.run();
  }

  // running

  async run() {
    if (!this.ready.length && !this.items.some(({ job }) => job && !ENDED.includes(job.state))) {
      return toast(this.items.length ? "Every picture here is done or has no mask; add some, or choose another kind of masks." : "Drop a folder of pictures first, or choose one.");
    }
    Object.assign(this, { stopping: false, began: performance.now() });
    const wish = this.settings(), todo = this.ready, before = this.items.filter(({ state }) => ENDED.includes(state)).length;
    this.busy(true, "Sending …", 0);
    const asking = (async () => {
      for (const item of todo) {
        while (!this.stopping && this.alive().length >= AHEAD) await wait(LOOK / 2);
        if (this.stopping) return;
        await this.ask(item, wish);
      }
    })();
    let sent = false;
    asking.then(() => { sent = true; });
    while (!sent || this.alive().length) {
      await wait(LOOK);
      for (const item of this.alive().slice(0, 3)) await this.look(item);
      const ended = this.items.filter(({ state }) => ENDED.includes(state)).length, all = this.alive().length + todo.filter(({ job, state }) => !job && !state).length + ended;
      const left = ended > before ? (performance.now() - this.began) / 1000 / (ended - before) * (all - ended) : null;
      this.busy(true, this.away || `${ended} of ${all} done${left === null ? "" : `, about ${spoken(left, true)} left`}`, all ? ended / all : 0);
      this.show();
    }
    this.busy(false);
    this.show();
  }

  alive() { return this.items.filter(({ job, state }) => job && !ENDED.includes(state)); }

  async ask(item, wish) {
    try {
      item.state = "sending";
      this.show();
      item.picture ??= (await api.upload(item.file, stemOf(item.path) + item.path.slice(item.path.lastIndexOf(".")))).id;
      const mask = await this.mask(item);
      for (;;) {
        try {
          item.job = await api.addJob({ ...wish, photo: item.picture, mask });
          break;
        } catch (error) {
          if (!/queue/.test(error.message) || this.stopping) throw error; // it is full: somebody else's jobs come first
          await wait(2000);
        }
      }
      item.state = item.job.state;
      this.keep();
    } catch (error) {
      Object.assign(item, { state: "failed", error: error.message });
    }
  }

  /** The mask of a picture as a job names it. */
  async mask(item) {
    if (this.mode === "alpha") return "alpha";
    const file = this.mode === "names" ? this.masks.get(item.stem) : this.mode === "one" ? this.one : await api.find(item.picture, { words: this.mode });
    return (await api.upload(file, file.name ?? `${item.stem}-mask.png`)).id;
  }

  async look(item) {
    let job;
    this.away = "";
    try {
      job = await api.job(item.job.id);
    } catch (error) {
      if (error.status !== 404) { // it may come back, and the job with it
        this.away = error.message;
        return;
      }
      job = { ...item.job, state: "failed", error: error.message, outputs: [] };
    }
    Object.assign(item, { job, state: job.state, outputs: job.outputs, error: job.error, progress: job.progress });
  }

  stop() {
    this.stopping = true;
    for (const { job } of this.alive().reverse()) api.stop(job.id).catch(() => {});
  }

  // looking

  show() {
    const { mode } = this, count = this.items.length, without = this.items.filter((item) => item.file && !item.job && !this.masked(item)).length;
    $("batch-mask").hidden = mode !== "one";
    $("batch-mask-name").textContent = mode === "one" ? this.one?.name ?? "" : mode === "names" && count ? `${this.masks.size} found` : "";
    $("batch-text").textContent = count ? `${count} ${count === 1 ? "picture" : "pictures"}${without ? `, ${without} without a mask` : ""}` : "";
    const list = $("batch-list");
    for (const item of this.items) {
      item.row ??= this.row(item);
      if (item.row.parentElement !== list) list.append(item.row);
      const { state, progress, outputs, error } = item, [text] = item.row.querySelectorAll(".state");
      const said = state === "running" && progress ? `${Math.round(progress.fraction * 100)} %` : state === "done" ? `done, ${spoken(outputs.reduce((sum, { seconds }) => sum + seconds, 0))}` : state === "failed" ? error : state;
      const now = said || (this.masked(item) ? "ready" : mode === "one" ? "no mask chosen" : "no mask of its name");
      if (text.textContent !== now) text.textContent = now;
      const image = item.row.querySelector("img"), source = outputs[0] ? api.smallUrl(outputs[0].picture) : item.picture ? api.smallUrl(item.picture) : "";
      if (source && image.getAttribute("src") !== source) image.src = source;
      item.row.dataset.state = state || "ready";
    }
    for (const row of [...list.children]) if (!this.items.some((item) => item.row === row)) row.remove();
    const done = this.items.filter(({ outputs }) => outputs.length);
    $("batch-zip").hidden = !done.length;
    if (done.length) $("batch-zip").href = api.archiveUrl(done.map(({ job }) => job.id));
    $("batch-clear").hidden = !count || this.alive().length > 0;
    this.changed();
  }

  row(item) {
    return make("li", {}, make("img", { alt: "", width: 64, height: 48 }), make("span", { className: "name", textContent: item.path }), make("span", { className: "state muted" }));
  }
}
