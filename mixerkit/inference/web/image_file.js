// Opening image files: told by their content, refused before they are decoded where they are too
// large or cut short. Browsers decode what is left; they may draw half of a broken file.

import { BadImage } from "./pixels.js";

// The image in a file, as pixels.js takes it: upright, transparent pixels on white.
export async function opened(file, rule) {
  if (file.size > rule.most_bytes) {
    const limit = Math.floor(rule.most_bytes / 2 ** 20);
    throw new BadImage(`its ${mebibytes(file.size)} MiB are above the limit of ${limit} MiB.`);
  }
  const { format, width, height, whole } = head(await content(file), rule.formats);
  if (!(width > 0 && height > 0) || !whole) throw broken();
  if (width * height > rule.most_pixels) {
    const limit = Math.floor(rule.most_pixels / 1e6);
    throw new BadImage(`${width} × ${height} px are above the limit of ${limit} million pixels.`);
  }
  return decoded(file.slice(0, file.size, `image/${format.toLowerCase()}`));
}

async function content(file) {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    throw new BadImage(`it cannot be read. Is it a folder, or gone? (${error.message})`);
  }
}

function mebibytes(size) {
  return Math.round(size / 2 ** 20).toLocaleString("en");
}

function broken() {
  return new BadImage("it is broken or cut short. Replace it by a whole copy.");
}

async function decoded(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
      imageOrientation: "from-image",
    });
  } catch {
    throw broken();
  }
  const { width, height } = bitmap;
  let canvas;
  function rows(top, count) {
    if (canvas?.height !== count) canvas = new OffscreenCanvas(width, count);
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, -top);
    return context.getImageData(0, 0, width, count).data;
  }
  return { width, height, rows, close: () => bitmap.close() };
}

// What the first bytes say: the format, width and height, and whether the end is there.
export function head(bytes, formats) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const [format, { begins, read }] of Object.entries(READERS)) {
    if (!begins.some((start) => startsWith(bytes, start))) continue;
    try {
      return { format, ...read(view, bytes) };
    } catch (error) {
      if (error instanceof RangeError) throw broken(); // read behind the end
      throw error;
    }
  }
  throw new BadImage(`its content is none of ${formats.join(", ")}. Convert it.`);
}

// A text, in which "?" stands for any byte.
function startsWith(bytes, text) {
  if (bytes.length < text.length) return false;
  return [...text].every((one, i) => one === "?" || one.charCodeAt(0) === bytes[i]);
}

function text(view, at, length) {
  const codes = Array.from({ length }, (_, i) => view.getUint8(at + i));
  return String.fromCharCode(...codes);
}

const READERS = {
  PNG: { begins: ["\x89PNG\r\n\x1a\n"], read: png },
  JPEG: { begins: ["\xff\xd8\xff"], read: jpeg },
  GIF: { begins: ["GIF87a", "GIF89a"], read: gif },
  WEBP: { begins: ["RIFF????WEBP"], read: webp },
  BMP: { begins: ["BM"], read: bmp },
};

function png(view) {
  const size = { width: view.getUint32(16), height: view.getUint32(20) };
  for (let at = 8; at + 12 <= view.byteLength; at += 12 + view.getUint32(at)) {
    if (text(view, at + 4, 4) === "IEND") return { ...size, whole: true };
  }
  return { ...size, whole: false };
}

// Segments up to the pixels; the size is in the frame's header (any SOF), the end is a marker, EOI.
function jpeg(view, bytes) {
  let size = { width: 0, height: 0 };
  let at = 2;
  for (;;) {
    while (view.getUint8(at) !== 0xff) at++; // stray bytes
    while (view.getUint8(at + 1) === 0xff) at++; // fill bytes
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) size = { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    if (marker === 0xda) break;
    at += 2 + view.getUint16(at + 2);
  }
  for (let i = bytes.length - 2; i > at; i--) {
    if (bytes[i] === 0xff && bytes[i + 1] === 0xd9) return { ...size, whole: true };
  }
  return { ...size, whole: false };
}

// Blocks up to the end of the first image: later ones are not shown. It may reach beyond the size in
// the file's head. What is not there is behind the end.
function gif(view) {
  const short = (at) => view.getUint16(at, true);
  const colours = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0); // bytes of a palette
  let at = 13 + colours(view.getUint8(10));
  for (let kind; (kind = view.getUint8(at)) !== 0x2c; ) {
    if (kind === 0x3b) throw broken(); // no image
    at = kind === 0x21 ? behindBlocks(view, at + 2) : at + 1;
  }
  behindBlocks(view, at + 11 + colours(view.getUint8(at + 9)));
  const width = Math.max(short(6), short(at + 1) + short(at + 5));
  const height = Math.max(short(8), short(at + 3) + short(at + 7));
  return { width, height, whole: true };
}

// Blocks that begin with their length, the last one has none.
function behindBlocks(view, at) {
  for (let length; (length = view.getUint8(at)) !== 0; ) at += 1 + length;
  return at + 1;
}

function webp(view) {
  const whole = view.getUint32(4, true) + 8 <= view.byteLength;
  const kind = text(view, 12, 4);
  if (kind === "VP8X") {
    const side = (at) => 1 + (view.getUint32(at, true) & 0xffffff);
    return { width: side(24), height: side(27), whole };
  }
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff), whole };
  }
  const side = (at) => view.getUint16(at, true) & 0x3fff;
  return { width: side(26), height: side(28), whole };
}

// The size of the file in its head is often wrong; what counts is that all rows of pixels are there.
function bmp(view) {
  const header = view.getUint32(14, true);
  const old = header === 12; // its first form
  const width = old ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = old ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true));
  const bits = view.getUint16(old ? 24 : 28, true);
  const isPacked = !old && [1, 2].includes(view.getUint32(30, true)); // run lengths
  const row = (width * bits) / 8;
  const padded = 4 * Math.ceil(row / 4);
  const pixels = isPacked ? view.getUint32(34, true) : padded * (height - 1) + Math.ceil(row);
  return { width, height, whole: pixelsBegin(view, header, bits) + pixels <= view.byteLength };
}

// Some files say that the pixels begin at 0, or where their palette does.
function pixelsBegin(view, header, bits) {
  const said = view.getUint32(10, true);
  if (said > 14 + header || bits > 8) return Math.max(said, 14 + header);
  const colours = (header > 12 && view.getUint32(46, true)) || 2 ** bits;
  return 14 + header + colours * (header > 12 ? 4 : 3);
}
