// The model at work, in a thread of its own, so that the page stays alive: messages in, answers out.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { opened } from "./image_file.js";
import { BadImage, prepared } from "./pixels.js";

let about;
let session;

const TASKS = { load, prepare, run };

onmessage = async ({ data: { id, task, words } }) => {
  const progress = (done, all) => postMessage({ id, progress: { done, all } });
  try {
    postMessage({ id, answer: await TASKS[task](words, progress) });
  } catch (error) {
    postMessage({ id, bad: error instanceof BadImage, error: error.message || String(error) });
  }
};

// Fetch runtime and model, and run once: the first run takes longer than those that follow.
async function load(address, progress) {
  const at = (name) => new URL(name, address);
  about = await (await found(at("model.json"))).json();
  let done = 0;
  const counted = (more) => progress((done += more), about.bytes);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await bytes(at(about.files.wasm), counted);
  const model = await bytes(at(about.files.model), counted);
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const { height, width, channels } = about.image;
  await run({ pixels: new Uint8Array(height * width * channels), count: 1, units: true });
  return about;
}

async function found(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.pathname} is not there: ${answer.status}`);
  return answer;
}

async function bytes(address, counted) {
  const parts = [];
  const reader = (await found(address)).body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    counted(value.length);
  }
}

// An image file as pixels at the model's size.
async function prepare(file) {
  const image = await opened(file, about.image);
  try {
    return prepared(image, about.image);
  } finally {
    image.close();
  }
}

// `count` images → logits, one image after the other; with `units`, how much each of the first
// block's token-mixing units says about the first image: the mean of its size over the channels.
async function run({ pixels, count, units }) {
  const { height, width, channels } = about.image;
  const images = new ort.Tensor("uint8", pixels, [count, height, width, channels]);
  const wanted = units && about.units ? ["logits", about.units.output] : ["logits"];
  const begun = performance.now();
  const result = await session.run({ images }, wanted);
  const milliseconds = performance.now() - begun;
  const answer = { logits: result.logits.data, milliseconds };
  if (wanted.length > 1) answer.units = sizes(result[about.units.output], about.units);
  for (const tensor of Object.values(result)) tensor.dispose();
  return answer;
}

// The mean size of a tensor's values for each place along one axis.
function sizes({ dims, data }, { axis, count }) {
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const sums = new Float64Array(count);
  for (let i = 0; i < data.length; i++) sums[Math.floor(i / inner) % count] += Math.abs(data[i]);
  return Array.from(sums, (sum) => (sum * count) / data.length);
}
