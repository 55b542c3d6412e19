// The settings: what the server offers, and the job that the form says.

import * as api from "./api.js";
import { $, capital, make, toast } from "./dom.js";

const SIDES = ["left", "top", "right", "bottom"];
// Entries of a job that the page has controls of its own for, and those that everybody sees; the rest are Advanced.
const OWN = ["photo", "mask", "model", "method", "fields", "seed", "outpaint"];
const EVERYDAY = ["prompt", "negative_prompt", "quality", "samples"];
const LABELS = { negative_prompt: "Not wanted", grow: "Grow the mask", blur: "Blend the seam", mask_is: "An uploaded mask is", guidance: "Guidance", true_cfg_scale: "True guidance", step_distilled: "Made for a few steps", reference_images: "Pictures to go by" };
/** The id of an entry's control, which no element of the page itself has, whatever the entry is called. */
export const entryId = (name) => `entry-${name.replaceAll("_", "-")}`;

export class Panel {
  constructor() {
    this.offers = null;
    this.lastSeed = null;
    this.comparing = false; // several methods are asked for
    this.framed = () => {}; // a side was typed
    this.chosen = () => {}; // another model
    $("model").addEventListener("change", () => this.chooseModel());
    $("method").addEventListener("change", () => this.chooseMethod());
    $("dice").addEventListener("click", () => { $("seed").value = ""; });
    for (const input of document.querySelectorAll("[data-side]")) {
      input.addEventListener("input", () => this.framed({ [input.dataset.side]: Math.max(0, Math.round(input.valueAsNumber || 0)) }));
    }
  }

  fill(offers) {
    this.offers = offers;
    $("model").replaceChildren(...offers.models.map(({ name }) => make("option", { value: name, textContent: name })));
    $("model").value = offers.models.some(({ name }) => name === "photo") ? "photo" : offers.models[0].name;
    this.entries = offers.entries.filter(({ name }) => !OWN.includes(name));
    for (const entry of this.entries) $(EVERYDAY.includes(entry.name) ? "everyday" : "more").append(this.entry(entry));
    $(entryId("samples")).max = offers.limits.samples;
    $(entryId("steps")).max = offers.limits.steps;
    const families = [...offers.families, { name: null, title: "Others", help: "Methods that were added here." }]
      .map((family) => ({ ...family, methods: offers.methods.filter((method) => method.family === family.name) })).filter(({ methods }) => methods.length);
    $("method").replaceChildren(...families.map(({ title, methods }) => make("optgroup", { label: title }, ...methods.map(({ name }) => make("option", { value: name, textContent: name })))));
    $("compare-methods").replaceChildren(...families.map(({ title, help, methods }) => make("fieldset", {},
      make("legend", { textContent: title }), make("p", { className: "help", textContent: help }),
      make("div", { className: "names" }, ...methods.map(({ name, title: long, gradients }) => make("label",
        { title: `${long}${gradients ? " (needs gradients: slower)" : ""}` },
        make("input", { type: "checkbox", value: name }), name))))));
    this.chooseModel();
  }

  get model() { return this.offers.models.find(({ name }) => name === $("model").value); }
  get method() { return this.offers.methods.find(({ name }) => name === $("method").value); }

  chooseModel() {
    const { title, trained, method, grey, without } = this.model;
    $("model-help").textContent = `${capital(title)}.${grey ? " Grey pictures only." : ""}`;
    for (const { name } of this.entries) $(entryId(name)).closest(".entry").hidden = without.includes(name);
    $("method-group").hidden = $("fields-group").hidden = trained;
    if (!trained) $("method").value = method;
    this.chooseMethod();
    this.chooseCompare();
    this.chosen(this.model.name);
  }

  chooseMethod() {
    if (this.model.trained) return;
    const { title, gradients, fields, name, family } = this.method, kind = this.offers.families.find((one) => one.name === family);
    $("family-help").textContent = kind ? `${kind.title}: ${kind.help}` : "";
    $("method-help").textContent = `${capital(title.replace(/^[^:]*: /, ""))}${gradients ? ". Needs gradients: slower." : "."}`;
    const own = name === this.model.method ? this.model.fields : {};
    $("fields").replaceChildren(...fields.map((field) => this.field({ ...field, default: own[field.name] ?? field.default })));
  }

  /** A control for an entry of a job, as the server's schema has it. */
  entry({ name, kind, default: value, nullable, low, above, high, choices, pattern, help }) {
    const label = LABELS[name] ?? capital(name.replaceAll("_", " ")), helped = `${entryId(name)}-help`;
    const shown = make("p", { className: "help", id: helped, textContent: `${capital(help)}.` });
    if (kind === "choice" && EVERYDAY.includes(name)) { // one of few: buttons
      const buttons = choices.map((choice) => make("label", {}, make("input", { type: "radio", name: entryId(name), value: choice, checked: choice === value }), make("span", { textContent: capital(choice) })));
      const group = make("fieldset", { id: entryId(name), className: "buttons" }, make("legend", { textContent: label }), make("div", {}, ...buttons));
      group.setAttribute("aria-describedby", helped);
      return make("div", { className: "entry" }, group, shown);
    }
    if (kind === "files") return make("div", { className: "entry" }, ...this.pictures(name, label, helped), shown);
    let input;
    if (kind === "flag") input = make("input", { type: "checkbox", checked: value });
    else if (kind === "choice") {
      input = make("select", {}, ...(nullable ? [make("option", { value: "", textContent: "automatic" })] : []), ...choices.map((choice) => make("option", { value: choice, textContent: choice })));
    } else if (kind === "text") input = name === "prompt" ? make("textarea", { rows: 2 }) : make("input", { pattern: pattern ?? ".*" });
    else {
      input = make("input", { type: "number", step: kind === "int" ? 1 : "any", required: !nullable });
      for (const [limit, bound] of [["min", low ?? above], ["max", high]]) if (bound !== null) input[limit] = bound;
      if (above !== null) input.addEventListener("input", () => input.setCustomValidity(input.valueAsNumber <= above ? `Give a number above ${above}.` : ""));
    }
    input.id = entryId(name);
    if (kind !== "flag") input.value = value ?? "";
    if (nullable && kind !== "choice") input.placeholder = kind === "text" ? "" : "automatic";
    input.setAttribute("aria-describedby", helped);
    const labelled = kind === "flag" ? make("label", { className: "check" }, input, ` ${label}`) : make("label", {}, `${label} `, input);
    return make("div", { className: "entry" }, labelled, shown);
  }

  /** A control for pictures that are sent at once and are ids from then on, and the list of them. */
  pictures(name, label, helped) {
    const input = make("input", { type: "file", accept: "image/*", multiple: true, id: entryId(name) });
    input.setAttribute("aria-describedby", helped);
    input.addEventListener("change", async () => {
      const files = [...input.files];
      input.value = "";
      try {
        for (const file of files) this.show(input, await api.upload(file, file.name));
      } catch (error) {
        toast(error.message, { bad: true });
      }
    });
    return [make("label", {}, `${label} `, input), make("ul", { className: "pictures" })];
  }

  /** Adds a picture to those of a control; one that the server does not have any more goes by itself. */
  show(input, { id, name }) {
    const list = input.closest(".entry").querySelector("ul");
    const seen = make("img", { src: api.smallUrl(id), alt: name ?? "" }), away = make("button", { type: "button", textContent: "×", title: `Leave ${name ?? "it"} out` });
    away.setAttribute("aria-label", away.title);
    const item = make("li", {}, seen, away);
    item.dataset.picture = id;
    seen.addEventListener("error", () => item.remove());
    away.addEventListener("click", () => { item.remove(); input.focus(); });
    list.append(item);
  }

  /** What the control of an entry says, null where it is left open. */
  value({ name, kind }) {
    const control = $(entryId(name));
    if (kind === "files") {
      const ids = [...control.closest(".entry").querySelectorAll("[data-picture]")].map(({ dataset }) => dataset.picture);
      return ids.length ? ids : null;
    }
    if (control.tagName === "FIELDSET") return control.querySelector(":checked").value;
    if (kind === "flag") return control.checked;
    if (control.value === "") return null;
    return kind === "int" || kind === "float" ? control.valueAsNumber : control.value;
  }

  put({ name, kind }, value) {
    const control = $(entryId(name));
    if (kind === "files") {
      control.closest(".entry").querySelector("ul").replaceChildren();
      for (const id of value ?? []) this.show(control, { id });
    } else if (control.tagName === "FIELDSET") for (const one of control.querySelectorAll("input")) one.checked = one.value === value;
    else if (kind === "flag") control.checked = value;
    else control.value = value ?? "";
  }

  field({ name, type, default: value, low, high, choices, help }) {
    const words = name.replaceAll("_", " ");
    const id = `field-${name}`;
    let input;
    if (type === "bool") input = make("input", { type: "checkbox", checked: value });
    else if (type === "choice") {
      input = make("select", {}, ...(value === null ? [make("option", { value: "", textContent: "the model's own" })] : []),
        ...choices.map((choice) => make("option", { value: choice, textContent: choice })));
      input.value = value ?? "";
    } else {
      input = make("input", { type: "number", step: type === "int" ? 1 : "any", placeholder: "none" });
      if (low !== null) input.min = low;
      if (high !== null) input.max = high;
      input.value = value ?? "";
      input.required = value !== null;
    }
    Object.assign(input.dataset, { field: name, type, given: JSON.stringify(value ?? null) });
    const range = low !== null && high !== null ? `, ${low} to ${high}` : low !== null ? `, from ${low}` : high !== null ? `, up to ${high}` : "";
    const shown = make("p", { className: "help", id, textContent: capital(help) + (type === "bool" || type === "choice" ? "" : range) });
    input.setAttribute("aria-describedby", id);
    const label = type === "bool" ? make("label", { className: "check" }, input, words) : make("label", {}, words, input);
    return make("div", {}, label, shown);
  }

  /** Whether several methods are compared. */
  compare(on) {
    this.comparing = on;
    if (this.offers) this.chooseCompare();
  }

  chooseCompare() {
    const on = this.comparing && !this.model.trained;
    $("compare-list").hidden = !on;
    $("method-label").hidden = $("method-help").hidden = $("family-help").hidden = on;
    $("fields-group").hidden = on || this.model.trained;
    if (on && !this.ticked().length) this.tick([...new Set([this.model.method, "ding", "replacement"])]);
  }

  ticked() {
    return [...$("compare-methods").querySelectorAll(":checked")].map(({ value }) => value);
  }

  tick(names) {
    for (const box of $("compare-methods").querySelectorAll("input")) box.checked = names.includes(box.value);
  }

  setFrame(frame) {
    for (const input of document.querySelectorAll("[data-side]")) {
      if (input.valueAsNumber !== frame[input.dataset.side]) input.value = frame[input.dataset.side];
    }
  }

  /** The jobs that the form asks for, without the picture: one, or one for each method that is compared. */
  jobs() {
    const { trained, name, without, method: own } = this.model;
    const compared = this.comparing && !trained ? this.ticked() : null;
    const seed = $("seed").value === "" ? (compared && compared.length > 1 ? Math.floor(Math.random() * 2 ** 31) : null) : $("seed").valueAsNumber;
    const common = { model: name, seed, outpaint: SIDES.map((side) => document.querySelector(`[data-side=${side}]`).valueAsNumber || 0) };
    for (const entry of this.entries) {
      if (entry.name === "mask_is" || without.includes(entry.name)) continue; // what is painted here is white on black
      const value = this.value(entry);
      if (value !== null && value !== entry.default) common[entry.name] = value;
    }
    if (compared) return compared.map((method) => ({ ...common, method: method === own ? null : method }));
    if (trained) return [common];
    // left to the server where it is the model's own, which knows the fields and steps that go with it
    return [{ ...common, method: $("method").value === own ? null : $("method").value, fields: this.fields() }];
  }

  /** The method's fields that were changed. */
  fields() {
    const values = {};
    for (const input of $("fields").querySelectorAll("[data-field]")) {
      const { field, type, given } = input.dataset;
      const value = type === "bool" ? input.checked : input.value === "" ? null : type === "choice" ? input.value : input.valueAsNumber;
      if (JSON.stringify(value) !== given) values[field] = value;
    }
    return values;
  }

  /** Puts the settings of a PNG back; returns what could not be. */
  restore(settings) {
    const missing = [];
    if (this.offers.models.some(({ name }) => name === settings.model)) $("model").value = settings.model;
    else missing.push(`the model ${settings.model}`);
    this.chooseModel();
    if (this.offers.methods.some(({ name }) => name === settings.method)) {
      $("method").value = settings.method;
      this.chooseMethod();
      this.chooseCompare();
      for (const input of $("fields").querySelectorAll("[data-field]")) {
        const value = settings.fields?.[input.dataset.field];
        if (value === undefined) continue;
        if (input.dataset.type === "bool") input.checked = value;
        else input.value = value ?? "";
      }
    } else if (settings.method !== "trained") missing.push(`the method ${settings.method}`);
    if (settings.seed !== undefined) $("seed").value = settings.seed ?? "";
    for (const entry of this.entries) if (settings[entry.name] !== undefined) this.put(entry, settings[entry.name]);
    $(entryId("samples")).value = 1; // a PNG is one sample
    return missing;
  }

  /** All controls as they are, to be put back after a reload. */
  state() {
    return {
      model: $("model").value, method: $("method").value, seed: $("seed").value, compare: this.ticked(), auto: $("auto").checked,
      advanced: $("advanced").open, fields: this.fields(), entries: Object.fromEntries(this.entries.map((entry) => [entry.name, this.value(entry)])),
    };
  }

  setState({ model, method, seed, compare, auto, advanced, fields, entries }) {
    this.restore({ model, method, fields, seed: seed === "" ? null : seed, ...entries });
    this.put({ name: "samples", kind: "int" }, entries.samples);
    $("advanced").open = advanced;
    $("auto").checked = Boolean(auto);
    if (compare?.length) this.tick(compare);
  }

  used(seeds) {
    const [first, last] = [Math.min(...seeds), Math.max(...seeds)];
    const help = $("seed-help");
    help.replaceChildren(`Used: ${first === last ? first : `${first} to ${last}`} `);
    const keep = make("button", { type: "button", className: "link help", textContent: "keep it" });
    keep.addEventListener("click", () => { $("seed").value = first; $("seed").focus(); });
    help.append(keep);
  }
}
