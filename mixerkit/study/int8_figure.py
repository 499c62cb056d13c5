"""The figure of `mixer bench int8`: what each product costs, alone in 8 bits."""

from typing import Any

from mixerkit.insight.canvas import new_figure, png_bytes, style
from mixerkit.study.figures import COLOURS, MARKS


def figure(products: list[dict[str, Any]]) -> bytes:
    """Signal to noise of the logits by block, a line for each product of a block, and one for the
    patch embedding, which comes before them."""
    known = {row["product"]: row["signal_to_noise"] for row in products}
    of_blocks = [name for name in known if name.startswith("blocks.")]
    parts = sorted({name.split(".", 2)[2] for name in of_blocks})
    with style():
        canvas = new_figure(6.4, 3.2)
        panel = canvas.subplots()
        for number, part in enumerate(parts):
            blocks = sorted(int(one.split(".")[1]) for one in of_blocks if one.endswith(f".{part}"))
            panel.plot(
                [block + 1 for block in blocks],
                [known[f"blocks.{block}.{part}"] for block in blocks],
                color=COLOURS[number], marker=MARKS[number], markersize=4.5, label=_called(part),
            )  # fmt: skip
            panel.set_xticks([block + 1 for block in blocks])
        if "stem" in known:
            panel.axhline(known["stem"], color="0.4", linestyle="--", label="patch embedding")
        panel.set(title="One product in 8 bits, all others in float", xlabel="block")
        panel.set_ylabel("signal to noise of the logits, dB")
        canvas.legend(loc="outside right center")
        return png_bytes(canvas)


def _called(part: str) -> str:
    """ "token_mixing.fc1" as people say it."""
    where, _, layer = part.rpartition(".")
    return f"{where.replace('_', ' ')}, {layer}"
