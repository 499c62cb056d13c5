// The model as the page sees it: a worker that answers. One that died is replaced by a fresh one.

import { BadImage } from "./pixels.js";

// Workers start from an address of the page's own making, so that the page's policy holds in them.
const CODE = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
const ADDRESS = URL.createObjectURL(new Blob([CODE], { type: "text/javascript" }));

export class Model {
  // `watch(done, all)` is told how many bytes have arrived.
  constructor(watch) {
    this.watch = watch;
    this.waiting = new Map();
    this.asked = 0;
    this.begin();
  }

  begin() {
    this.worker = new Worker(ADDRESS, { type: "module" });
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = ({ message }) => this.fail(message);
    this.about = this.post("load", document.baseURI);
  }

  // The pixels of an image file, at the model's size.
  prepare(file) {
    return this.ask("prepare", file);
  }

  // Logits of `count` images, milliseconds, and, if wanted, what the units say of the first one.
  run(pixels, count = 1, units = false) {
    return this.ask("run", { pixels, count, units });
  }

  async ask(task, words) {
    if (!this.worker) this.begin();
    await this.about;
    return this.post(task, words);
  }

  post(task, words) {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
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
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new BadImage(error));
    else resolve(answer);
  }

  // Everyone who waits is told; the next question starts a fresh worker.
  fail(message) {
    this.worker?.terminate();
    this.worker = null;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    const error = new Error(message || "its worker stopped");
    for (const { reject } of waiting) reject(error);
  }
}
