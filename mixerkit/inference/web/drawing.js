// A canvas to draw on, with a finger, a mouse, a pen, or the keyboard.

const SHORTEST = 320; // pixels of its shorter side, at least

// `drawn(file)` is told of the drawing after every stroke, as a PNG.
export function drawingBoard(elements, about, drawn) {
  const { canvas, cursor, pen, width, clear, said } = elements;
  const grey = about.image.channels === 1;
  const paper = grey ? "#000000" : "#ffffff"; // grey models mostly know light things on black
  const times = Math.ceil(SHORTEST / Math.min(about.image.height, about.image.width));
  canvas.width = about.image.width * times;
  canvas.height = about.image.height * times;
  pen.value = grey ? "#e8e8e8" : "#1f2328";
  const context = canvas.getContext("2d", { alpha: false });
  const at = { x: canvas.width / 2, y: canvas.height / 2 };
  let isDown = false;

  function wipe() {
    context.fillStyle = paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }

  function lineTo(x, y) {
    context.lineWidth = (width.value / 100) * canvas.width;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = pen.value;
    context.beginPath();
    context.moveTo(at.x, at.y);
    context.lineTo(x + 0.01, y); // a line without length would not be drawn: a tap is a dot
    context.stroke();
    moveTo(x, y);
  }

  function moveTo(x, y) {
    at.x = Math.min(canvas.width, Math.max(0, x));
    at.y = Math.min(canvas.height, Math.max(0, y));
    cursor.style.left = `${(100 * at.x) / canvas.width}%`;
    cursor.style.top = `${(100 * at.y) / canvas.height}%`;
  }

  function finished() {
    canvas.toBlob((blob) => drawn(new File([blob], "your drawing", { type: "image/png" })));
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  function lift() {
    if (!isDown) return;
    isDown = false;
    cursor.classList.remove("down");
    finished();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return; // a second finger, another button
    canvas.setPointerCapture(event.pointerId);
    isDown = true;
    moveTo(...place(event));
    lineTo(...place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (isDown && event.isPrimary && event.buttons) lineTo(...place(event));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => event.isPrimary && lift());
  }
  canvas.addEventListener("blur", lift);

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) {
      const [x, y] = step.map((one) => (one * canvas.width) / 28);
      (isDown ? lineTo : moveTo)(at.x + x, at.y + y);
    } else if (event.key === " " && event.repeat) {
      // held down for long: once is enough
    } else if (event.key === " " && isDown) {
      said.textContent = "The pen is up.";
      lift();
    } else if (event.key === " ") {
      said.textContent = "The pen is down.";
      isDown = true;
      cursor.classList.add("down");
      lineTo(at.x, at.y);
    } else {
      return;
    }
    event.preventDefault();
  });
  clear.addEventListener("click", () => {
    wipe();
    moveTo(canvas.width / 2, canvas.height / 2);
    said.textContent = "The paper is empty.";
  });
  wipe();
  moveTo(at.x, at.y);
}
