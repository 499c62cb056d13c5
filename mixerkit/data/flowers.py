"""Oxford Flowers-102 (Nilsback and Zisserman 2008): 10 images a class to train, 10 to validate."""

from pathlib import Path

import numpy as np

from mixerkit.data.matlab import read_mat
from mixerkit.data.splits import ImageSplit, Splits, check_files
from mixerkit.errors import UserError

# In the order of the labels 1 to 102; the files themselves carry no names.
CLASS_NAMES = tuple(
    """
    pink primrose|hard-leaved pocket orchid|canterbury bells|sweet pea|english marigold|
    tiger lily|moon orchid|bird of paradise|monkshood|globe thistle|snapdragon|colt's foot|
    king protea|spear thistle|yellow iris|globe-flower|purple coneflower|peruvian lily|
    balloon flower|giant white arum lily|fire lily|pincushion flower|fritillary|red ginger|
    grape hyacinth|corn poppy|prince of wales feathers|stemless gentian|artichoke|
    sweet william|carnation|garden phlox|love in the mist|mexican aster|alpine sea holly|
    ruby-lipped cattleya|cape flower|great masterwort|siam tulip|lenten rose|barbeton daisy|
    daffodil|sword lily|poinsettia|bolero deep blue|wallflower|marigold|buttercup|
    oxeye daisy|common dandelion|petunia|wild pansy|primula|sunflower|pelargonium|
    bishop of llandaff|gaura|geranium|orange dahlia|pink-yellow dahlia|cautleya spicata|
    japanese anemone|black-eyed susan|silverbush|californian poppy|osteospermum|
    spring crocus|bearded iris|windflower|tree poppy|gazania|azalea|water lily|rose|
    thorn apple|morning glory|passion flower|lotus|toad lily|anthurium|frangipani|clematis|
    hibiscus|columbine|desert-rose|tree mallow|magnolia|cyclamen|watercress|canna lily|
    hippeastrum|bee balm|ball moss|foxglove|bougainvillea|camellia|mallow|mexican petunia|
    bromelia|blanket flower|trumpet creeper|blackberry lily
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)


def open_flowers102(folder: Path) -> Splits:
    """Training, validation and test split as `setid.mat` says (trnid, valid, tstid)."""
    labels = _numbers(folder / "imagelabels.mat", "labels") - 1
    if labels.size == 0 or labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
        raise UserError(f"{folder / 'imagelabels.mat'}: expected labels from 1 to 102.")
    train, validation, test = (
        _split(folder, labels, key, name)
        for key, name in (("trnid", "train"), ("valid", "validation"), ("tstid", "test"))
    )
    return check_files(Splits(train, validation, test, f"flowers102: {folder}"))


def _split(folder: Path, labels: np.ndarray, key: str, name: str) -> ImageSplit:
    numbers = _numbers(folder / "setid.mat", key)
    if numbers.size == 0 or numbers.min() < 1 or numbers.max() > len(labels):
        raise UserError(
            f"{folder / 'setid.mat'}: {key} must hold image numbers from 1 to {len(labels)}."
        )
    paths = tuple(folder / "jpg" / f"image_{number:05d}.jpg" for number in numbers)
    return ImageSplit(f"flowers102 {name}", CLASS_NAMES, labels[numbers - 1], None, paths)


def _numbers(path: Path, key: str) -> np.ndarray:
    """int64 [N] of a row, a column or a single number."""
    values = np.atleast_1d(read_mat(path, key))
    if values.ndim == 1 and values.dtype.kind in "iuf":
        numbers = values[(values >= 0) & (values < 2**31)].astype(np.int64)
        if np.array_equal(numbers, values):
            return numbers
    raise UserError(
        f"{path}: '{key}' must be a row of whole numbers, found {values.dtype} of shape "
        f"{values.shape}: it is not the file that the authors give."
    )
