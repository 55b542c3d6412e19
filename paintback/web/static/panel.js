// The settings: what the server offers, and the job that the form says.

import { $, make } from "./dom.js";

const capital = (text) => text.replace(/^./, (first) => first.toUpperCase()).replace(/\.$/, "");
const SIDES = ["left", "top", "right", "bottom"];

export class Panel {
  constructor() {
    this.offers = null;
    this.lastSeed = null;
    this.framed = () => {}; // a side was typed
    $("model").addEventListener("change", () => this.chooseModel());
    $("method").addEventListener("change", () => this.chooseMethod());
    $("compare").addEventListener("change", () => this.chooseCompare());
    $("dice").addEventListener("click", () => { $("seed").value = ""; });
    for (const input of document.querySelectorAll("[data-side]")) {
      input.addEventListener("input", () => this.framed({ [input.dataset.side]: Math.max(0, Math.round(input.valueAsNumber || 0)) }));
    }
  }

  fill(offers) {
    this.offers = offers;
    $("model").replaceChildren(...offers.models.map(({ name }) => make("option", { value: name, textContent: name })));
    $("model").value = offers.models.some(({ name }) => name === "photo") ? "photo" : offers.models[0].name;
    $("samples").max = offers.limits.samples;
    $("method").replaceChildren(...offers.methods.map(({ name }) => make("option", { value: name, textContent: name })));
    $("compare-methods").replaceChildren(...offers.methods.map(({ name, title, gradients }) => make("label",
      { title: `${title}${gradients ? " (needs gradients: slower)" : ""}` },
      make("input", { type: "checkbox", value: name }), name)));
    this.chooseModel();
  }

  get model() { return this.offers.models.find(({ name }) => name === $("model").value); }
  get method() { return this.offers.methods.find(({ name }) => name === $("method").value); }

  chooseModel() {
    const { title, takes_text, trained, method, steps, grey } = this.model;
    $("model-help").textContent = `${capital(title)}.${grey ? " Grey pictures only." : ""}`;
    $("text-group").hidden = !takes_text;
    $("method-group").hidden = $("fields-group").hidden = trained;
    if (!trained) $("method").value = method;
    $("steps").value = steps;
    this.chooseMethod();
    this.chooseCompare();
  }

  chooseMethod() {
    if (this.model.trained) return;
    const { title, gradients, fields, name } = this.method;
    $("method-help").textContent = `${capital(title.replace(/^[^:]*: /, ""))}${gradients ? ". Needs gradients: slower." : "."}`;
    const own = name === this.model.method ? this.model.fields : {};
    $("fields").replaceChildren(...fields.map((field) => this.field({ ...field, default: own[field.name] ?? field.default })));
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
    Object.assign(input.dataset, { field: name, type });
    const range = low !== null && high !== null ? `, ${low} to ${high}` : low !== null ? `, from ${low}` : high !== null ? `, up to ${high}` : "";
    const shown = make("p", { className: "help", id, textContent: capital(help) + (type === "bool" || type === "choice" ? "" : range) });
    input.setAttribute("aria-describedby", id);
    const label = type === "bool" ? make("label", { className: "check" }, input, words) : make("label", {}, words, input);
    return make("div", {}, label, shown);
  }

  chooseCompare() {
    const on = $("compare").checked && !this.model.trained;
    $("compare-list").hidden = !on;
    $("method-label").hidden = $("method-help").hidden = on;
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
    const number = (id) => ($(id).value === "" ? null : $(id).valueAsNumber);
    const { takes_text, trained, name } = this.model;
    const compared = $("compare").checked && !trained ? this.ticked() : null;
    const seed = number("seed") ?? (compared && compared.length > 1 ? Math.floor(Math.random() * 2 ** 31) : null);
    const common = {
      model: name,
      steps: number("steps"),
      samples: number("samples"),
      seed,
      grow: number("grow") ?? 0,
      blur: number("blur") ?? 0,
      outpaint: SIDES.map((side) => document.querySelector(`[data-side=${side}]`).valueAsNumber || 0),
      ...(takes_text ? { prompt: $("prompt").value || null, negative_prompt: $("negative-prompt").value || null, guidance: number("guidance") } : {}),
    };
    if (compared) return compared.map((method) => ({ ...common, method }));
    return [trained ? common : { ...common, method: $("method").value, fields: this.fields() }];
  }

  /** The method's fields as set; those at their default are left out, so that a preset may move them. */
  fields() {
    const values = {};
    const defaults = Object.fromEntries(this.method.fields.map((field) => [field.name, field.default]));
    for (const input of $("fields").querySelectorAll("[data-field]")) {
      const { field, type } = input.dataset;
      if (type === "bool") values[field] = input.checked;
      else if (input.value !== "") values[field] = type === "choice" ? input.value : input.valueAsNumber;
      if (values[field] === defaults[field]) delete values[field];
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
      $("compare").checked = false;
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
    for (const [id, value] of [["steps", settings.steps], ["seed", settings.seed], ["grow", settings.grow], ["blur", settings.blur],
      ["prompt", settings.prompt], ["negative-prompt", settings.negative_prompt], ["guidance", settings.guidance]]) {
      if (value !== undefined) $(id).value = value ?? "";
    }
    $("samples").value = 1; // a PNG is one sample
    return missing;
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
