// What was painted before, by day: the server has it until it is deleted or old.

import * as api from "./api.js";
import { $, make, spoken } from "./dom.js";

const STATES = { waiting: "waiting", running: "running", failed: "failed", stopped: "stopped" };
const PAGE = 30;

export class Drawer {
  constructor({ open, guarded, removed }) {
    Object.assign(this, { open, guarded, removed, names: new Map(), last: null });
    $("history-close").addEventListener("click", () => $("history").close());
    $("history-more").addEventListener("click", () => guarded(() => this.more()));
    $("history").addEventListener("click", (event) => { if (event.target === $("history")) $("history").close(); });
  }

  async show() {
    this.last = null;
    $("history-days").replaceChildren();
    $("history").showModal();
    await this.guarded(() => this.more());
  }

  async more() {
    const jobs = await api.jobs(this.last, PAGE);
    for (const job of jobs) this.add(job);
    this.last = jobs.at(-1)?.id ?? this.last;
    $("history-more").hidden = jobs.length < PAGE;
    this.empty();
  }

  empty() {
    if (!$("history-days").children.length) $("history-days").append(make("p", { className: "muted", textContent: "Nothing has been painted yet." }));
  }

  day(created) {
    const date = new Date(created * 1000), id = `day-${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
    if ($(id)) return $(id).querySelector("ul");
    const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
    const name = days === 0 ? "Today" : days === 1 ? "Yesterday" : date.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
    const all = make("button", { type: "button", className: "small plain", textContent: "Delete this day" });
    all.setAttribute("aria-label", `Delete everything of ${name}`);
    const list = make("ul"), section = make("section", { id }, make("div", { className: "drawer-head" }, make("h3", { textContent: name }), all), list);
    all.addEventListener("click", () => this.guarded(async () => { for (const item of [...list.children]) await this.remove(item.job, item); }));
    $("history-days").querySelector(":scope > p")?.remove();
    $("history-days").append(section);
    return list;
  }

  add(job) {
    const { request, outputs, state, created } = job, first = outputs[0];
    const picture = make("img", { src: api.smallUrl(first?.picture ?? request.photo), alt: "", loading: "lazy", width: 72, height: 54 });
    const title = make("b", { textContent: "…" }), took = outputs.reduce((sum, { seconds }) => sum + seconds, 0);
    const said = [new Date(created * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" }), request.method, request.quality, STATES[state] ?? `${outputs.length} ${outputs.length === 1 ? "result" : "results"}, ${spoken(took)}`];
    const open = make("button", { type: "button", className: "entry-open" }, picture, make("span", {}, title, make("span", { className: "muted", textContent: said.join(", ") })));
    const gone = make("button", { type: "button", className: "icon plain", title: "Delete" });
    gone.innerHTML = '<svg aria-hidden="true"><use href="#i-clear"/></svg>';
    gone.setAttribute("aria-label", `Delete ${said.join(", ")}`);
    const item = make("li", { job }, open, gone);
    open.addEventListener("click", () => this.guarded(async () => { $("history").close(); await this.open(job); }));
    gone.addEventListener("click", () => this.guarded(() => this.remove(job, item)));
    this.day(created).append(item);
    this.name(request.photo).then((name) => {
      title.textContent = name;
      gone.setAttribute("aria-label", `Delete ${name}, ${said.join(", ")}`);
    });
  }

  name(photo) {
    if (!this.names.has(photo)) this.names.set(photo, api.about(photo).then(({ name }) => name, () => "a picture that is gone"));
    return this.names.get(photo);
  }

  async remove(job, item) {
    await api.removeJob(job.id);
    const day = item.closest("section"), next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    if (next) next.querySelector(".entry-open").focus();
    else day.remove();
    this.removed(job.id);
    this.empty();
  }
}
