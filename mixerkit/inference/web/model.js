// The model as the page sees it: a worker that answers. One that died is replaced by a fresh one.

import { BadImage } from "./pixels.js";

export class Model {
  // `watch(done, all)` is told how many bytes have arrived.
  constructor(watch) {
    this.watch = watch;
    this.waiting = new Map();
    this.asked = 0;
    this.wasLoaded = false;
    this.begin();
  }

  begin() {
    // Started from an address of the page's own making, so that the page's policy holds in it too.
    const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(address, { type: "module" });
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = ({ message }) => this.fail(message);
    this.about = this.ask("load", document.baseURI);
  }

  // The pixels of an image file, at the model's size.
  async prepare(file) {
    await this.about;
    return this.ask("prepare", file);
  }

  // Logits of `count` images, milliseconds, and, if wanted, what the units say of the first one.
  async run(pixels, count = 1, units = false) {
    await this.about;
    return this.ask("run", { pixels, count, units });
  }

  ask(task, words) {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, task });
      this.worker.postMessage({ id, task, words });
    });
  }

  hear({ id, progress, answer, error, bad }) {
    if (progress) {
      this.watch(progress.done, progress.all);
      return;
    }
    if (error && !bad) {
      this.fail(error);
      return;
    }
    const { resolve, reject, task } = this.waiting.get(id);
    this.waiting.delete(id);
    if (task === "load") this.wasLoaded = true;
    if (error) reject(new BadImage(error));
    else resolve(answer);
  }

  // Everyone who waits is told, and the next question finds a fresh worker.
  fail(message) {
    this.worker.terminate();
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    const hadLoaded = this.wasLoaded;
    this.wasLoaded = false;
    if (hadLoaded) this.begin();
    const error = new Error(message || "its worker stopped");
    for (const { reject } of waiting) reject(error);
  }
}
